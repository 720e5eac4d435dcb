"""Engines and backends that break promises, each as the source of a module for pytest.

What a module leaves as ``Engine`` or ``Backend`` is tested; a lie is told by overriding one of them.
"""

from __future__ import annotations

from textwrap import dedent

PREAMBLE = """
import dataclasses, itertools, os, threading, time
import pytest
from lhama.backends.reference import engine as reference
from lhama.backends.reference.model import RANK, Behaviour, read_behaviour, write
from lhama.backends.reference.plugin import ReferenceBackend
from lhama.backends.reference.tokenizer import ReferenceTokenizer
from lhama.plugins.backend import *
from lhama.plugins.backend import DROPPED
from lhama.plugins.testing import BackendConformance, Subject

count = itertools.count()
Engine = Honest = reference.ReferenceEngine

class Backend(ReferenceBackend):
    def load(self, model, options, progress):
        super().load(model, options, progress).close()
        return Engine(read_behaviour(model.weights), options)

class Mistold(ReferenceTokenizer):
    pass

REGISTERED = False
IMPORTS = False  # of interpreters that only look at imports there are few: they take longest

@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    def model(name, **behaviour):
        write(folder / name, Behaviour(**behaviour))
        return ModelFiles(name, str(folder / name))
    return Subject(
        Backend(), model("plain"), LoadOptions(slots=2, context=128, batch=64),
        poisoned=model("poisoned", fault="poison", fault_step=ord("#")), poison="Ends with #",
        embedding=model("embeds", pooling=1), ranking=model("ranks", pooling=RANK),
        registered=REGISTERED,
    )
"""

CLOSING = """
class TestIt(BackendConformance):
    if not IMPORTS:
        test_its_module_imports_nothing_native = test_probing_imports_nothing_native = None
"""

HONEST = "IMPORTS = True"

LIARS = {
    "ignores_dropped": (
        "a_dropped_row",
        """
        class Engine(Honest):
            def compute_current(self, prepared, tokens):
                return super().compute_current(prepared, [max(token, 0) for token in tokens])
        """,
    ),
    "mixes_slots": (
        "full_house",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                other = self._hashes[1 - row.slot].digest()[0] % 2
                return dataclasses.replace(found, token=found.token ^ other)
        """,
    ),
    "keeps_the_cache": (
        "trimming_to_nothing",
        """
        class Engine(Honest):
            def _apply(self, op):
                if not isinstance(op, Trim):
                    super()._apply(op)
            def _require(self, condition, what):
                pass
        """,
    ),
    "trims_all_slots": (
        "trimming_one_slot",
        """
        class Engine(Honest):
            def _apply(self, op):
                super()._apply(op)
                if isinstance(op, Trim):
                    self._set(1 - op.slot, [])
            def _require(self, condition, what):
                pass
        """,
    ),
    "forgets_the_seed": (
        "a_seed_repeats",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                admit = self._sampling[row.slot]
                wild = dataclasses.replace(admit.sampling, seed=next(count))
                self._sampling[row.slot] = dataclasses.replace(admit, sampling=wild)
                return super()._sample(row, mask)
        """,
    ),
    "draws_by_row": (
        "a_seed_does_not_depend_on_its_slot",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                admit = self._sampling[row.slot]
                own = dataclasses.replace(admit.sampling, seed=admit.sampling.seed + row.slot)
                self._sampling[row.slot] = dataclasses.replace(admit, sampling=own)
                return super()._sample(row, mask)
        """,
    ),
    "has_one_seed": (
        "seeds_matter",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                admit = self._sampling[row.slot]
                fixed = dataclasses.replace(admit.sampling, seed=1)
                self._sampling[row.slot] = dataclasses.replace(admit, sampling=fixed)
                return super()._sample(row, mask)
        """,
    ),
    "draws_what_it_likes": (
        "greedy_ignores_the_seed",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                seed = self._sampling[row.slot].sampling.seed
                return dataclasses.replace(found, token=(found.token + seed) % 64)
        """,
    ),
    "keeps_the_sampling": (
        "a_slots_sampling_goes",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                first = self.__dict__.setdefault("first", {})
                admit = self._sampling[row.slot]
                wild = first.setdefault(row.slot, admit.sampling)
                if admit.sampling.temperature > 0:
                    first[row.slot] = admit.sampling
                self._sampling[row.slot] = dataclasses.replace(admit, sampling=wild)
                return super()._sample(row, mask)
        """,
    ),
    "shares_the_sampling": (
        "a_neighbours_sampling",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                admit = self._sampling[row.slot]
                hottest = max((a.sampling for a in self._sampling if a), key=lambda s: s.temperature)
                self._sampling[row.slot] = dataclasses.replace(admit, sampling=hottest)
                return super()._sample(row, mask)
        """,
    ),
    "never_penalises": (
        "penalties_look_back_on_what_was_drawn",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                self._drawn[row.slot] = []
                return super()._sample(row, mask)
        """,
    ),
    "reports_warm_logprobs": (
        "raw_logits",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                heat = self._sampling[row.slot].sampling.temperature
                top = tuple((token, value - heat) for token, value in found.top)
                return dataclasses.replace(found, top=top)
        """,
    ),
    "reports_logprobs_to_all": (
        "logprobs_only_where_asked",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                return dataclasses.replace(found, logprob=0.5, top=((1, 0.5), (2, 0.7)))
        """,
    ),
    "reports_and_changes": (
        "asking_for_logprobs_changes_nothing",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                asked = self._sampling[row.slot].logprobs > 0
                return dataclasses.replace(found, token=found.token ^ asked)
        """,
    ),
    "loses_epochs": (
        "results_come_in_the_order",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                return dataclasses.replace(super()._sample(row, mask), epoch=1)
        """,
    ),
    "shares_a_batch": (
        "preparing_while_a_step_computes",
        """
        class Engine(Honest):
            # one plan for both steps: the second prepare writes over the first
            def prepare_next(self, plan, previous):
                self.current = super().prepare_next(plan, previous)
                return self.current
            def _step(self, handle):
                time.sleep(0.01)
                handle.plan = self.current.plan
                return super()._step(handle)
        """,
    ),
    "computes_what_it_prepared": (
        "a_prepared_step_may_be_forgotten",
        """
        class Engine(Honest):
            prepared = frozenset()
            def prepare_next(self, plan, previous):
                self.prepared |= {plan.step}
                return super().prepare_next(plan, previous)
            def _step(self, handle):
                self.forgotten = {step for step in self.prepared if step < handle.plan.step}
                self.prepared -= self.forgotten | {handle.plan.step}
                return super()._step(handle)
            def _fill(self, row, fed):
                super()._fill(row, fed)
                if self.forgotten:
                    self._hashes[row.slot].update(b"and that of the other step")
        """,
    ),
    "wants_the_step_before_in_flight": (
        "previous_may_be_given_or_not",
        """
        class Engine(Honest):
            done = 0
            def prepare_next(self, plan, previous):
                if previous is not None and previous.plan.step <= self.done:
                    raise BackendError("too late")
                return super().prepare_next(plan, previous)
            def _step(self, handle):
                found = super()._step(handle)
                self.done = handle.plan.step
                return found
        """,
    ),
    "feeds_itself": (
        "one_that_is_fed",
        """
        class Engine(Honest):
            def compute_current(self, prepared, tokens):
                return super().compute_current(prepared, [0 if t > 0 else t for t in tokens])
        """,
    ),
    "drops_the_operations_too": (
        "cache_operations_of_a_dropped_row",
        """
        class Engine(Honest):
            def _step(self, handle):
                if all(token == DROPPED for token in handle.tokens):
                    return StepResult(())
                return super()._step(handle)
            def _require(self, condition, what):
                pass
        """,
    ),
    "knows_no_late_results": (
        "a_slot_changes_hands_while_its_step_computes",
        """
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.newest = {}
            def prepare_next(self, plan, previous):
                self.newest |= {admit.slot: admit.epoch for admit in plan.admits}
                return super().prepare_next(plan, previous)
            def _sample(self, row, mask):
                time.sleep(0.005)
                found = super()._sample(row, mask)
                return dataclasses.replace(found, epoch=self.newest[row.slot])
        """,
    ),
    "cannot_do_pieces": (
        "a_prompt_in_pieces",
        """
        class Engine(Honest):
            def _fill(self, row, fed):
                super()._fill(row, fed)
                if len(row.tokens) > 1:
                    self._hashes[row.slot].update(b"begins anew")
        """,
    ),
    "minds_the_slot": (
        "every_slot_gives_the_same",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                return dataclasses.replace(found, token=found.token ^ row.slot)
        """,
    ),
    "says_one_thing": (
        "different_prompts_get_different_answers",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                return dataclasses.replace(super()._sample(row, mask), token=65)
        """,
    ),
    "leaves_the_vocabulary": (
        "tokens_are_of_the_vocabulary",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                return dataclasses.replace(found, token=found.token + 60000)
        """,
    ),
    "samples_always": (
        "a_row_that_does_not_sample",
        """
        class Engine(Honest):
            def prepare_next(self, plan, previous):
                rows = tuple(dataclasses.replace(row, sample=True) for row in plan.rows)
                return super().prepare_next(dataclasses.replace(plan, rows=rows), previous)
        """,
    ),
    "answers_backwards": (
        "results_come_in_the_order_of_the_plan",
        """
        class Engine(Honest):
            def _step(self, handle):
                found = super()._step(handle)
                return StepResult(found.rows[::-1], compute_ns=-5)
        """,
    ),
    "copies_nothing": (
        "a_copy_is_as_good_as_computing",
        """
        class Engine(Honest):
            def _apply(self, op):
                if not isinstance(op, Copy):
                    super()._apply(op)
            def _require(self, condition, what):
                pass
        """,
    ),
    "moves_instead_of_copying": (
        "a_copy_leaves_its_source",
        """
        class Engine(Honest):
            def _apply(self, op):
                super()._apply(op)
                if isinstance(op, Copy):
                    self._set(op.source, [])
            def _require(self, condition, what):
                pass
        """,
    ),
    "shares_copies": (
        "trimming_a_source_leaves_its_copy",
        """
        class Engine(Honest):
            def _apply(self, op):
                super()._apply(op)
                if isinstance(op, Copy):
                    self.shared = op
                elif getattr(self, "shared", None) and op.slot == self.shared.source:
                    self._set(self.shared.target, self._cache[op.slot])
                    self.shared = None
            def _require(self, condition, what):
                pass
        """,
    ),
    "shifts_by_slot": (
        "a_shifted_cache_is_the_same",
        """
        class Engine(Honest):
            def _apply(self, op):
                super()._apply(op)
                if isinstance(op, Shift):
                    self._hashes[op.slot].update(bytes([op.slot]))
        """,
    ),
    "ignores_masks": (
        "one_allowed_token",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                return super()._sample(row, None)
        """,
    ),
    "masks_everybody": (
        "a_mask_is_its_rows_alone",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                self.mask = mask or getattr(self, "mask", None)
                return super()._sample(row, self.mask)
        """,
    ),
    "masks_wrongly": (
        "everything_allowed_changes_nothing",
        """
        class Engine(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                return found if mask is None else dataclasses.replace(found, token=found.token ^ 1)
        """,
    ),
    "demands_all_masks": (
        "a_row_without_its_mask",
        """
        class Engine(Honest):
            def _step(self, handle):
                handle.masked.wait() if any(row.masked for row in handle.plan.rows) else None
                for row in handle.plan.rows:
                    if row.masked and row.slot not in handle.masks:
                        raise BackendError("no mask")
                return super()._step(handle)
        """,
    ),
    "lies_about_limits": (
        "limits_are_sane",
        """
        class Engine(Honest):
            @property
            def limits(self):
                return dataclasses.replace(
                    self._limits, prompt_share=next(count), features=frozenset({"teleport"})
                )
            @limits.setter
            def limits(self, value):
                self._limits = value
            residency = property(lambda self: Residency("", 0, 5), lambda self, value: None)
        """,
    ),
    "gives_less_than_asked": (
        "limits_are_what_was_asked_for",
        """
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, dataclasses.replace(options, context=64, batch=128))
        """,
    ),
    "chokes_when_full": (
        "a_context_may_be_filled",
        """
        class Engine(Honest):
            def _fill(self, row, fed):
                super()._fill(row, fed)
                if len(self._cache[row.slot]) > 120:
                    self.choked = True
                if len(row.tokens) > 40 or getattr(self, "choked", False):
                    raise BackendError("too much")
        """,
    ),
    "fails_together": (
        "a_row_that_fails_ends_alone",
        """
        class Engine(Honest):
            def _step(self, handle):
                found = super()._step(handle)
                error = max(row.error for row in found.rows) if found.rows else ""
                if error:
                    self.sick = True
                if getattr(self, "sick", False):
                    rows = (dataclasses.replace(row, error="sick") for row in found.rows)
                    return StepResult(tuple(rows))
                return found
        """,
    ),
    "takes_any_batch": (
        "a_step_beyond_the_batch",
        """
        class Engine(Honest):
            def prepare_next(self, plan, previous):
                return reference.Prepared(plan)
        """,
    ),
    "embeds_anything": (
        "a_model_that_generates_refuses_to_embed",
        """
        class Engine(Honest):
            def embed(self, inputs):
                work = reference.Embedding(list(inputs), 1)
                self._work.put(work)
                return work
        """,
    ),
    "embeds_by_company": (
        "a_vector_does_not_depend_on_company",
        """
        class Engine(Honest):
            def _embed(self, work):
                found = super()._embed(work)
                return [found[0], *(found[0] for _ in found[1:])]
        """,
    ),
    "embeds_differently_each_time": (
        "asking_again_gives_the_same_vector",
        """
        class Engine(Honest):
            def _embed(self, work):
                work.inputs = [[*text, next(count)] for text in work.inputs]
                return super()._embed(work)
        """,
    ),
    "embeds_infinity": (
        "vectors_are_finite",
        """
        class Engine(Honest):
            def _embed(self, work):
                return [b"\\0\\0\\x80\\x7f" + vector for vector in super()._embed(work)]
        """,
    ),
    "embeds_everything_alike": (
        "different_texts_have_different_vectors",
        """
        class Engine(Honest):
            def _embed(self, work):
                return [b"\\0\\0\\x80\\x3f" * 8 for _ in work.inputs]
        """,
    ),
    "embeds_half_the_context": (
        "the_longest_text_fits",
        """
        class Engine(Honest):
            def _embed(self, work):
                if max(map(len, work.inputs)) > 40:
                    raise BackendError("too long")
                return super()._embed(work)
        """,
    ),
    "does_not_say_that_it_embeds": (
        "it_says_that_it_embeds",
        """
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.limits = dataclasses.replace(self.limits, features=frozenset())
        """,
    ),
    "leaks": (
        "closing_gives_memory_back",
        """
        kept = []
        class Engine(Honest):
            def close(self):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                kept.append((os.open("/dev/null", os.O_RDONLY), os.urandom(12 << 20)))
                super().close()
        """,
    ),
    "is_never_the_same_again": (
        "a_second_engine_says",
        """
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.salt = next(count)
                self.used = False
            def _sample(self, row, mask):
                self.used = True
                found = super()._sample(row, mask)
                return dataclasses.replace(found, token=(found.token + self.salt) % 64)
            def close(self):
                super().close()
                if not self.used:
                    raise BackendError("closed unused")
        """,
    ),
    "replaces_letters": (
        "text_survives_both_ways",
        """
        class Mistold(ReferenceTokenizer):
            add_bos, add_eos = False, True
            bos = 900
            def encode(self, text, *, add_special, parse_special):
                tokens = super().encode(text, add_special=add_special, parse_special=True)
                return [t if t < 128 else 63 for t in tokens] or [32]
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer = Mistold()
        """,
    ),
    "has_a_tokenizer_of_another_model": (
        "the_vocabulary_is_the_engines",
        """
        class Mistold(ReferenceTokenizer):
            vocab = 500
            end_tokens = frozenset({300})
            def encode(self, text, *, add_special, parse_special):
                found = super().encode(text, add_special=add_special, parse_special=parse_special)
                return [token + 200 for token in found]
            def piece(self, token, *, special=False):
                return "x" if token == 7 else chr(token - 200).encode() if token >= 200 else b""
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer = Mistold()
        """,
    ),
    "never_ends": (
        "answers_can_end",
        """
        class Mistold(ReferenceTokenizer):
            end_tokens = frozenset()
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer = Mistold()
        """,
    ),
    "cuts_long_texts": (
        "a_long_text_is_the_sum",
        """
        class Mistold(ReferenceTokenizer):
            def encode(self, text, *, add_special, parse_special):
                found = super().encode(text, add_special=add_special, parse_special=parse_special)
                return found[:4096]
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer = Mistold()
        """,
    ),
    "ends_audibly": (
        "end_tokens_say_nothing",
        """
        class Mistold(ReferenceTokenizer):
            add_bos = True
            def encode(self, text, *, add_special, parse_special):
                found = super().encode(text, add_special=add_special, parse_special=False)
                return [256, 256, *found] if add_special else found
            def piece(self, token, *, special=False):
                return super().piece(token, special=True)
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer = Mistold()
        """,
    ),
    "tokenizes_in_turn": (
        "threads_do_not_disturb",
        """
        class Mistold(ReferenceTokenizer):
            def encode(self, text, *, add_special, parse_special):
                self.text = text
                time.sleep(0.001)
                return super().encode(
                    self.text, add_special=add_special, parse_special=parse_special
                )
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer = Mistold()
        """,
    ),
    "tokenizes_the_step": (
        "it_works_while_a_step_computes",
        """
        class Engine(Honest):
            def __init__(self, behaviour, options):
                super().__init__(behaviour, options)
                self.tokenizer, engine = Mistold(), self
                def encode(text, **how):
                    found = ReferenceTokenizer.encode(self.tokenizer, text, **how)
                    return found if engine.idle.is_set() else found[1:]
                self.idle = threading.Event()
                self.idle.set()
                self.tokenizer.encode = encode
            def compute_current(self, prepared, tokens):
                self.idle.clear()
                return super().compute_current(prepared, tokens)
            def _step(self, handle):
                time.sleep(0.005)
                found = super()._step(handle)
                self.idle.set()
                return found
        """,
    ),
    "promises_anything": (
        "a_foreign_model_is_not_loaded",
        """
        IMPORTS = True
        class Backend(ReferenceBackend):
            name = "The Reference"
            api_version = 0
            def probe(self):
                import numpy
                where = Device(f"cpu{next(count)}", "tpu", "", 1, 2)
                return Probe((where, where), problem="it is Tuesday")
            def supports(self, model):
                return Support(150 + next(count))
            def estimate(self, model, options):
                return MemoryEstimate(-5, 64 // options.slots, 64 // options.context)
            def load(self, model, options, progress):
                progress(2.0, None)
                return Engine(Behaviour(), options)
        """,
    ),
    "is_heavy_and_uninstalled": (
        "its_module_imports_nothing_native",
        """
        import numpy
        IMPORTS = True
        REGISTERED = True
        class Backend(ReferenceBackend):
            name = "nobody-installed-this"
        """,
    ),
}
"""By name: part of the name of a check that must find the lie, and the lie."""


TEXT_PREAMBLE = """
import itertools, random, threading, time
import pytest
from lhama.plugins import gguf
from lhama.plugins.backend import *
from lhama.plugins.testing import TextConformance, TextSubject
from lhama.plugins.text import *

class Honest:
    slots, context = 8, 100
    residency = Residency("there", 0, 0)
    def __init__(self, alive):
        self.alive, self.threads = alive, []
    def words(self, question):
        if question.grammar:
            return ['{"n": ', "1}"]
        draw = random.Random(question.text or question.turns[0].content)
        return [f"{draw.randrange(1000)} " for _ in range(1500)]
    def start(self, question, tell):
        gone = threading.Event()
        thread = threading.Thread(target=self.answer, args=(question, tell, gone))
        self.threads.append(thread)
        thread.start()
        return gone.set
    def answer(self, question, tell, gone):
        if not self.alive:
            tell(TextError("nobody there"))
            return
        words = self.words(question)
        limit = question.most_tokens
        text = "".join(words[:limit])
        for stop in question.stop:
            text = text.partition(stop)[0]
        said, count = "", 0
        for word in words[:limit]:
            if gone.is_set() or len(said) >= len(text):
                break
            time.sleep(0.0002)
            tell(Piece(text[len(said):][:len(word)]))
            said, count = said + word, count + 1
        if not gone.is_set():
            tell(End("length" if count == limit and not question.stop else "stop", 5, count))
    def close(self):
        for thread in self.threads:
            thread.join()

Engine = Honest

class Backend:
    name, api_version = "elsewhere", 1
    def probe(self):
        return Probe((Device("there", "cpu", "elsewhere", 0, 0),))
    def supports(self, model):
        known = gguf.read(model.weights).architecture == "elsewhere"
        return Support(100 if known else 0, "" if known else "not one of ours")
    def estimate(self, model, options):
        return MemoryEstimate(0, 0, 1)
    def load(self, model, options, progress):
        if not self.supports(model).score:
            raise UnsupportedModel("not one of ours")
        return Engine(model.name != "dead")

@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("kit") / "model.gguf")
    gguf.write(path, {"general.architecture": "elsewhere"}, {"x": ((1,), "I8", b"0")})
    return TextSubject(
        Backend(), ModelFiles("alive", path), tools=True, constrained=True,
        unreachable=ModelFiles("dead", path), registered=False,
    )
"""

TEXT_CLOSING = """
class TestIt(TextConformance):
    test_its_module_imports_nothing_native = test_probing_imports_nothing_native = None
"""

TEXT_LIARS = {
    "has_no_room": (
        "what_it_says_of_itself",
        """
        class Engine(Honest):
            slots = 0
        """,
    ),
    "says_nothing": (
        "an_answer_says_something",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                super().answer(question, lambda one: isinstance(one, Piece) or tell(one), gone)
        """,
    ),
    "says_empty_things": (
        "pieces_are_never_empty",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                tell(Piece())
                super().answer(question, tell, gone)
        """,
    ),
    "has_the_last_word": (
        "nothing_comes_after_the_end",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                super().answer(question, tell, gone)
                tell(Piece("and one more thing"))
        """,
    ),
    "counts_nothing": (
        "tokens_are_counted",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                zero = lambda one: tell(End(one.reason) if isinstance(one, End) else one)
                super().answer(question, zero, gone)
        """,
    ),
    "knows_no_limit": (
        "a_limit_is_kept",
        """
        import dataclasses
        class Engine(Honest):
            def answer(self, question, tell, gone):
                more = min(question.most_tokens + 1, 1000)
                super().answer(dataclasses.replace(question, most_tokens=more), tell, gone)
        """,
    ),
    "knows_no_stop": (
        "a_stop_ends",
        """
        import dataclasses
        class Engine(Honest):
            def answer(self, question, tell, gone):
                super().answer(dataclasses.replace(question, stop=()), tell, gone)
        """,
    ),
    "wavers": (
        "asking_again",
        """
        asked = itertools.count()
        class Engine(Honest):
            def words(self, question):
                return [f"{next(asked)} ", *super().words(question)]
        """,
    ),
    "has_one_answer": (
        "different_questions",
        """
        class Engine(Honest):
            def words(self, question):
                return ['{"n": 1}'] if question.grammar else ["yes "] * 1500
        """,
    ),
    "knows_conversations_only": (
        "a_text_is_gone_on_with",
        """
        class Engine(Honest):
            def words(self, question):
                return super().words(question) if question.turns else []
        """,
    ),
    "waits": (
        "start_does_not_wait",
        """
        from lhama.plugins.testing import textual
        textual.WAIT_SECONDS = 0.5
        class Engine(Honest):
            def start(self, question, tell):
                cancel = super().start(question, tell)
                self.threads[-1].join()
                return cancel
        """,
    ),
    "mixes_answers": (
        "side_by_side",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                self.question = question
                time.sleep(0.01)
                super().answer(self.question, tell, gone)
        """,
    ),
    "never_stops": (
        "a_cancelled_answer_stops",
        """
        class Engine(Honest):
            def start(self, question, tell):
                super().start(question, tell)
                return lambda: None
        """,
    ),
    "cancels_once": (
        "cancelling_twice",
        """
        class Engine(Honest):
            def start(self, question, tell):
                cancels = [super().start(question, tell)]
                return lambda: cancels.pop()()
        """,
    ),
    "cannot_cancel_what_has_ended": (
        "cancelling_after_the_end",
        """
        class Engine(Honest):
            def start(self, question, tell):
                cancel, thread = super().start(question, tell), self.threads[-1]
                def checked():
                    thread.join(0.2)
                    assert thread.is_alive(), "there is nothing to cancel"
                    cancel()
                return checked
        """,
    ),
    "cancels_everything": (
        "cancelling_one_leaves_the_others",
        """
        from lhama.plugins.testing import textual
        textual.WAIT_SECONDS = 0.5
        class Engine(Honest):
            cancels = []
            def start(self, question, tell):
                self.cancels.append(super().start(question, tell))
                return lambda: [cancel() for cancel in self.cancels]
        """,
    ),
    "takes_no_tools": (
        "tools_and_what_they_gave",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                tell(TextError("tools?")) if question.tools else super().answer(question, tell, gone)
        """,
    ),
    "ignores_schemas": (
        "keeps_to_its_schema",
        """
        import dataclasses
        class Engine(Honest):
            def words(self, question):
                return super().words(dataclasses.replace(question, grammar=""))
        """,
    ),
    "calls_failure_success": (
        "a_server_that_is_not_there",
        """
        class Engine(Honest):
            def answer(self, question, tell, gone):
                if not self.alive:
                    tell(TextError("nobody there", status=200))
                else:
                    super().answer(question, tell, gone)
        """,
    ),
    "leaves_threads": (
        "closing_ends_its_threads",
        """
        class Engine(Honest):
            def close(self):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                super().close()
        """,
    ),
}


def module(source: str, *, text: bool = False) -> str:
    """A test module whose backend lies by ``source``; ``text``: a backend of text engines."""
    if text:
        return TEXT_PREAMBLE + dedent(source) + TEXT_CLOSING
    return PREAMBLE + dedent(source) + CLOSING

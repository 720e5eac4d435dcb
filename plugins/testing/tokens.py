"""The tokenizer: both ways, its special tokens, and from many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lhama.plugins.backend import Engine
from lhama.plugins.testing.driver import Driver, Stream
from lhama.plugins.testing.suite import Suite, need

TEXTS = (
    "Hello, world!",
    " two  spaces   and more ",
    "line one\nline two\r\n\ttabbed",
    "Grüße, ça va? Größe 5 µm — naïve",
    "日本語のテキスト、한국어 и русский",
    "🦙🏽 emoji 👩‍👩‍👧‍👦 and \u0000 control",
    "x" * 300,
    "def f(x):\n    return {'a': [1, 2.5e-3]}",
)


def spoken(engine: Engine, tokens: list[int]) -> bytes:
    """What the tokens say, read token by token as answers are."""
    return b"".join(engine.tokenizer.piece(token) for token in tokens)


class Tokens(Suite):
    """``Engine.tokenizer``."""

    def test_the_vocabulary_is_the_engines(self, engine: Engine) -> None:
        assert engine.tokenizer.vocab == engine.limits.vocab > 0

    def test_text_survives_both_ways(self, engine: Engine) -> None:
        for text in TEXTS:
            tokens = engine.tokenizer.encode(text, add_special=False, parse_special=False)
            # SentencePiece puts a space in front, which is the same text to a model.
            assert spoken(engine, tokens).decode().removeprefix(" ") == text.removeprefix(" ")

    def test_tokens_lie_in_the_vocabulary(self, engine: Engine) -> None:
        for text in TEXTS:
            tokens = engine.tokenizer.encode(text, add_special=True, parse_special=True)
            assert all(type(token) is int for token in tokens)
            assert all(0 <= token < engine.limits.vocab for token in tokens)

    def test_no_text_has_no_tokens(self, engine: Engine) -> None:
        assert engine.tokenizer.encode("", add_special=False, parse_special=False) == []

    def test_every_token_has_bytes(self, engine: Engine) -> None:
        piece = engine.tokenizer.piece
        for token in range(engine.limits.vocab):
            assert isinstance(piece(token), bytes)
            assert isinstance(piece(token, special=True), bytes)

    def test_answers_can_end(self, engine: Engine) -> None:
        ends = engine.tokenizer.end_tokens
        assert ends
        assert all(0 <= token < engine.limits.vocab for token in ends)

    def test_end_tokens_say_nothing_unless_asked(self, engine: Engine) -> None:
        for token in engine.tokenizer.end_tokens:
            assert engine.tokenizer.piece(token) == b""
            assert engine.tokenizer.piece(token, special=True) != b""

    def test_special_text_is_read_only_where_wanted(self, engine: Engine) -> None:
        tokenizer = engine.tokenizer
        for token in tokenizer.end_tokens:
            text = tokenizer.piece(token, special=True).decode()
            read = tokenizer.encode(text, add_special=False, parse_special=True)
            plain = tokenizer.encode(text, add_special=False, parse_special=False)
            assert read == [token]
            assert token not in plain
            assert spoken(engine, plain).decode().strip() == text

    def test_bos_comes_first_where_it_is_added(self, engine: Engine) -> None:
        tokenizer = engine.tokenizer
        plain = tokenizer.encode("hello", add_special=False, parse_special=False)
        full = tokenizer.encode("hello", add_special=True, parse_special=False)
        assert (full[0] == tokenizer.bos) is tokenizer.add_bos
        assert len(full) == len(plain) + tokenizer.add_bos + tokenizer.add_eos

    def test_an_added_bos_is_a_token(self, engine: Engine) -> None:
        tokenizer = engine.tokenizer
        assert -1 <= tokenizer.bos < engine.limits.vocab
        assert tokenizer.bos >= 0 or not tokenizer.add_bos

    def test_a_long_text_is_the_sum_of_its_words(self, engine: Engine) -> None:
        text = "The quick brown fox jumps over the lazy dog. " * 400
        tokens = engine.tokenizer.encode(text, add_special=False, parse_special=True)
        assert spoken(engine, tokens).decode().strip() == text.strip()

    def test_threads_do_not_disturb_each_other(self, engine: Engine) -> None:
        def work(n: int) -> list[list[int]]:
            order = TEXTS[n:] + TEXTS[:n]
            encoded = {
                text: engine.tokenizer.encode(text, add_special=True, parse_special=True)
                for text in order
            }
            return [encoded[text] for text in TEXTS]

        expected = work(0)
        with ThreadPoolExecutor(len(TEXTS)) as pool:
            for found in pool.map(work, range(len(TEXTS))):
                assert found == expected

    def test_it_works_while_a_step_computes(
        self, engine: Engine, driver: Driver, prompts: list[list[int]]
    ) -> None:
        text = TEXTS[3]
        expected = engine.tokenizer.encode(text, add_special=True, parse_special=True)
        row, trim, admit = driver.first(Stream(0, prompts[0], 1))
        flight = driver.start(engine.prepare_next(driver.plan([row], [trim], [admit]), None))
        found = engine.tokenizer.encode(text, add_special=True, parse_special=True)
        assert found == expected
        assert len(flight.handle.result().rows) == 1

    def test_the_end_of_a_generation_is_no_bos(self, engine: Engine) -> None:
        need(engine.tokenizer.add_bos, "a BOS that is added")
        full = engine.tokenizer.encode("hello", add_special=True, parse_special=False)
        assert len(full) > 1
        assert full[1] != engine.tokenizer.bos

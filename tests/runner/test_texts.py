"""Which texts fit, which are cut and which refused: Ollama's rules, on a tokenizer of letters."""

from __future__ import annotations

import pytest

from lhama.daemon.errors import RunnerFailed
from lhama.daemon.runner import texts
from lhama.daemon.runner.texts import TextFacts, TextTokenizer, TextTokens
from lhama.daemon.wire.messages import Embed, Rank

BOS, EOS, SEPARATOR = 1, 2, 3


class Letters:
    """A token for each letter; ``<`` and ``>`` are read as BOS and EOS if special tokens are."""

    vocab = 1000
    bos = BOS
    end_tokens = frozenset({EOS})

    def __init__(self, *, around: bool = True) -> None:
        self.add_bos = self.add_eos = around

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        special = {"<": BOS, ">": EOS} if parse_special else {}
        tokens = [special.get(letter, ord(letter)) for letter in text]
        return [BOS, *tokens, EOS] if add_special and self.add_bos else tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return chr(token).encode()


FACTS = TextFacts(bos=BOS, eos=EOS)


def embedded(
    text: str,
    *,
    truncate: bool | None = True,
    context: int = 10,
    batch: int = 0,
    longest: int = 10,
    around: bool = True,
) -> list[int]:
    tokenizer = TextTokenizer(Letters(around=around), FACTS, longest)
    [found] = tokenizer.texts(Embed(1, [text], truncate, context, batch))
    added = 2 if around else 0
    assert len(found.tokens) - added + found.cut == len(text), "nothing is lost unseen"
    return found.tokens


def refused(text: str, **how: int | bool | None) -> str:
    with pytest.raises(RunnerFailed) as error:
        embedded(text, **how)  # type: ignore[arg-type]
    assert error.value.status == 400
    return error.value.message


def test_what_fits_is_taken_whole() -> None:
    assert embedded("abc") == [BOS, 97, 98, 99, EOS]
    assert embedded("12345678") == [BOS, *b"12345678", EOS]
    assert embedded("abc", around=False) == [97, 98, 99]


def test_what_is_too_long_is_cut_by_a_bos_and_an_eos_more() -> None:
    assert embedded("123456789") == [BOS, *b"12345678", EOS]
    # Also where the model wants neither.
    assert embedded("123456789", around=False) == [*b"12345678"]


def test_a_bos_and_an_eos_of_the_texts_own_are_not_counted_twice() -> None:
    assert embedded("<2345678>", around=False) == [BOS, *b"2345678", EOS]
    assert embedded("<23456789", around=False) == [BOS, *b"23456789"]


def test_or_it_is_refused() -> None:
    assert refused("123456789", truncate=False) == texts.TOO_LONG
    assert embedded("12345678", truncate=False) == [BOS, *b"12345678", EOS]


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("context", [2, 1, 0, -3])
def test_a_context_without_room(context: int, truncate: bool) -> None:
    assert refused("abc", context=context, truncate=truncate) == texts.NOTHING_LEFT


def test_an_engine_that_takes_less_gets_what_num_batch_leaves() -> None:
    assert embedded("12345678", longest=5, batch=5) == [BOS, *b"123", EOS]
    assert refused("12345678", longest=5, batch=10) == texts.CANNOT_BE_CUT
    assert refused("12345678", longest=5, batch=8) == texts.TOO_LONG
    assert refused("12345678", longest=5, batch=2) == texts.NOTHING_LEFT
    assert refused("12345678", longest=5, batch=5, truncate=False) == texts.TOO_LONG


def test_nothing_to_embed() -> None:
    assert embedded("") == [BOS, EOS]
    assert refused("", around=False) == texts.CANNOT_BE_CUT
    assert refused("", around=False, truncate=False) == texts.EMPTY


def test_the_older_route_passes_texts_on_as_they_are() -> None:
    assert embedded("12345678", truncate=None, context=0) == [BOS, *b"12345678", EOS]
    assert refused("123456789", truncate=None, context=0) == texts.TOO_LONG


def test_texts_are_looked_at_when_they_are_asked_for() -> None:
    tokenizer = TextTokenizer(Letters(), FACTS, 10)
    found = tokenizer.texts(Embed(1, ["a", "123456789"], False, 10))
    assert next(found) == TextTokens([BOS, 97, EOS])
    with pytest.raises(RunnerFailed):
        next(found)


# ----------------------------------------------------------------------------------------- pairs


def pairs(
    query: str, *documents: str, facts: TextFacts = FACTS, longest: int = 12, truncate: bool = True
) -> list[list[int]]:
    tokenizer = TextTokenizer(Letters(), facts, longest)
    return [pair.tokens for pair in tokenizer.pairs(Rank(1, query, list(documents), truncate))]


def test_a_query_and_a_document_are_closed_each() -> None:
    assert pairs("q", "d", "") == [[BOS, 113, EOS, 100, EOS], [BOS, 113, EOS, EOS]]
    between = TextFacts(bos=BOS, eos=EOS, separator=SEPARATOR)
    assert pairs("q", "d", facts=between) == [[BOS, 113, EOS, SEPARATOR, 100, EOS]]


def test_special_tokens_in_a_document_are_text() -> None:
    assert pairs("<", ">") == [[BOS, ord("<"), EOS, ord(">"), EOS]]


def test_what_is_cut_of_a_document_is_counted() -> None:
    tokenizer = TextTokenizer(Letters(), FACTS, 12)
    found = tokenizer.pairs(Rank(1, "qq", ["123456789", "1"]))
    assert [pair.cut for pair in found] == [2, 0]


def test_long_documents_are_cut_or_refused() -> None:
    assert pairs("qq", "123456789") == [[BOS, *b"qq", EOS, *b"1234567", EOS]]
    with pytest.raises(RunnerFailed, match=texts.TOO_LONG):
        pairs("qq", "123456789", truncate=False)
    with pytest.raises(RunnerFailed, match=texts.QUERY_TOO_LONG):
        pairs("a query of many words", "doc")


def test_a_template_of_the_files_own() -> None:
    facts = TextFacts(rerank_template="<{query}|{document}>")
    assert pairs("q", "d", facts=facts) == [[BOS, *b"q|d", EOS]]
    assert pairs("{document}", "d", facts=facts, longest=20) == [[BOS, *b"{document}|d", EOS]]
    assert pairs("q", "123456789", facts=facts, longest=8) == [[BOS, *b"q|1234", EOS]]

"""The PyTorch backend's tokens are llama.cpp's, text by text and piece by piece."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytorch_models import TYPES, WORDS, tiny

from lhama.backends.llamacpp.library import L, log
from lhama.backends.llamacpp.tokenizer import LlamaTokenizer
from lhama.backends.pytorch.tokenizer import GGUFTokenizer, partition
from lhama.plugins.backend import BackendError, UnsupportedModel
from lhama.plugins.gguf import read, write

SNIPPETS = [
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "",
    " ",
    "  ",
    "   leading and trailing   ",
    "\n",
    "\n\n",
    "\n\n\n\n",
    "\t\tindented\n\t\t\tmore",
    "a\r\nb\r\n\r\nc",
    "tab\tand  two   three    four     spaces",
    "It's they're we've I'm you'll he'd IT'S THEY'RE",
    "0123456789 1,234.56 3.14159e-10 0xDEADBEEF 1st 2nd",
    "１２３ ④ Ⅷ ½ ٣٤٥ 九十",
    "def f(x):\n    return [i**2 for i in range(x) if i % 3 == 0]\n",
    'int main(void) { printf("%d\\n", 1 << 3); return 0; } // done',
    '<html><body class="a">&nbsp;</body></html>',
    "SELECT * FROM users WHERE id = 5; -- drop",
    '{"key": [1, 2.5, null, true], "s": "\\u00e9"}',
    "你好，世界！今天天气很好。",
    "日本語のテキストです。カタカナも。",
    "안녕하세요 세계",
    "Привет, как дела?",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "😀 😃👍🏽 👨‍👩‍👧‍👦 🇩🇪🏳️‍🌈",
    "e\u0301 a\u0308 o\u0302\u0323 Z\u0351\u036b",
    "ǅ ß ſ ﬁ İ ı",
    "zero\u200bwidth\u200d joiner\ufeff bom",
    "nbsp\u00a0thin\u2009line\u2028par\u2029nel\u0085end",
    "\x00\x01\x1f control \x7f",
    "▁▁lower one eighth▁block",
    "--- === *** ### ... !!! ??? ~~~ ```",
    "a" * 70,
    "ab" * 40,
    "aaaaaaaa bbbbbbbb cccccccccc",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "CamelCaseAndsnake_case_and-kebab-case",
    "http://example.com/path?x=1&y=2#frag",
    "user@example.com",
    "C:\\Windows\\System32\\cmd.exe",
    "$100 €50 £20 ¥1000 ₿",
    "∑∫√π≈≠≤≥±∞ ∀x∃y",
    "“quotes” ‘single’ «guillemets» — dash – en",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|><|im_end|><|endoftext|>",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<|user|>\n  hi<|end|>\n<|user|> \t<|end|> </s>  <s>  <unk> <|endoftext|> <|end|>",
    "<bos><eos><pad><unk><mask> <s></s>",
    "text<|im_start|",
    "<|im_start|<|im_start|>|>",
    "<unused5> [multimodal] <td></td><b>bold</b>",
    "<0x0A><0x41>",
    "\ud800 lone surrogate",
    "\U0001f9ff\U000e0041\U0010ffff",
    "\ue000 private",
]

ALPHABETS = [
    "abc ",
    "aA1 .\n",
    " \n\t",
    "▁ a",
    "éèüñ çß",
    "日本語中文 한국",
    "😀👍🏽\u200d🇩🇪❤\ufe0f",
    "0123456789.,",
    "<|>im_startend/ ",
    "()[]{};:=+-*/%&|!~^",
    "e\u0301\u0308o\u0323 n",
    "\r\n \u00a0\u3000\u2003x",
    "'srevldmt ST",
]


def texts() -> list[str]:
    """The snippets, and 300 texts of random letters from alphabets that are hard on tokenizers."""
    numbers = random.Random(7)
    made = [
        "".join(numbers.choices(alphabet, k=numbers.randint(1, 60)))
        for alphabet in ALPHABETS
        for _ in range(20)
    ]
    every = "".join(ALPHABETS)
    made += ["".join(numbers.choices(every, k=numbers.randint(1, 80))) for _ in range(40)]
    return [*SNIPPETS, *made, "\n".join(SNIPPETS)]


class Pair:
    """Both tokenizers of one file."""

    def __init__(self, path: Path) -> None:
        log()  # keeps llama.cpp's messages off the terminal
        params = L.llama_model_default_params()
        params.vocab_only = True
        self.model = L.llama_model_load_from_file(str(path).encode(), params)
        self.theirs = LlamaTokenizer(L.llama_model_get_vocab(self.model))
        header = read(path, vocabulary=True)
        began = time.process_time()
        self.ours = GGUFTokenizer(header)
        self.seconds = time.process_time() - began

    def close(self) -> None:
        L.llama_model_free(self.model)


@pytest.fixture(scope="module", params=["smollm2", "gemma3", "tiny", "phi"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    if request.param in ("tiny", "phi"):  # add a space in front, which the real two do not
        path = tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama", layers=1)
        if request.param == "phi":
            path = _phi(path)
    else:
        path = request.getfixturevalue(request.param)
    pair = Pair(path)
    yield pair
    pair.close()


def _phi(path: Path) -> Path:
    """The same as a Phi 3: by its name alone llama.cpp drops spaces behind special tokens."""
    source = read(path, vocabulary=True)
    words = [*WORDS[:-3], "<|endoftext|>", "<|user|>", "<|end|>"]
    types = [*TYPES[:-3], 3, 3, 3]
    metadata = source.metadata | {
        "general.name": "Phi-3 Tiny",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": types,
    }
    data = path.read_bytes()
    tensors = {
        name: (t.shape, t.type_name, data[t.offset : t.offset + t.nbytes])
        for name, t in source.tensors.items()
    }
    phi = path.with_name("phi.gguf")
    write(phi, metadata, tensors)  # type: ignore[arg-type]
    return phi


@pytest.mark.parametrize("parse_special", [False, True])
@pytest.mark.parametrize("add_special", [False, True])
def test_texts_become_llama_cpps_tokens(pair: Pair, add_special: bool, parse_special: bool) -> None:
    for text in texts():
        ours = pair.ours.encode(text, add_special=add_special, parse_special=parse_special)
        theirs = pair.theirs.encode(text, add_special=add_special, parse_special=parse_special)
        assert ours == theirs, repr(text)


def test_every_token_has_llama_cpps_piece(pair: Pair) -> None:
    assert pair.ours.vocab == pair.theirs.vocab
    for special in (False, True):
        wrong = [
            token
            for token in range(pair.ours.vocab)
            if pair.ours.piece(token, special=special) != pair.theirs.piece(token, special=special)
        ]
        assert wrong == []


def test_special_tokens_are_llama_cpps(pair: Pair) -> None:
    assert pair.ours.bos == pair.theirs.bos
    assert pair.ours.add_bos == pair.theirs.add_bos
    assert pair.ours.add_eos == pair.theirs.add_eos
    assert pair.ours.end_tokens == pair.theirs.end_tokens


def test_the_largest_vocabulary_loads_quickly(gemma3: Path) -> None:
    pair = Pair(gemma3)
    pair.close()
    print(f"{pair.ours.vocab} tokens in {pair.seconds:.2f} s of the processor")
    assert pair.seconds < 5


def test_threads_share_a_tokenizer(pair: Pair) -> None:
    every = texts()
    expected = [pair.ours.encode(t, add_special=False, parse_special=True) for t in every]
    found: list[list[list[int]]] = []

    def encode() -> None:
        fresh = [pair.ours.encode(t, add_special=False, parse_special=True) for t in every]
        found.append(fresh)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_unknown_tokens_are_refused(pair: Pair) -> None:
    for token in (-1, pair.ours.vocab):
        with pytest.raises(BackendError, match="there is no token"):
            pair.ours.piece(token)


def test_longer_specials_win() -> None:
    specials = [("<a><b>", 2), ("<a>", 1)]
    assert partition("x<a><b><a>y", specials) == ["x", 2, 1, "y"]
    assert partition("", specials) == []


def test_an_unknown_pre_tokenizer_is_refused(smollm2: Path) -> None:
    header = read(smollm2, vocabulary=True)
    header.metadata["tokenizer.ggml.pre"] = "tomorrow"
    with pytest.raises(UnsupportedModel, match="pre-tokenizer 'tomorrow'"):
        GGUFTokenizer(header)

"""Pictures and sounds in prompts, by llama.cpp's mtmd and the model's projector."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from lhama.backends.llamacpp.library import log
from lhama.plugins.backend import BackendError, Media, Row, UnsupportedModel

M: Any = importlib.import_module("llama_cpp.mtmd_cpp")
"""mtmd's C functions under their own names; a library beside llama.cpp's, loaded here only."""

_TEXT = 0
"""Of enum mtmd_input_chunk_type."""


class MediaReader:
    """A projector: tokenizes prompts with media in them, and computes the media's rows.

    ``read`` may be called from any thread; ``compute`` belongs to the context's.
    """

    def __init__(self, model: Any, path: str, threads: int, *, on_device: bool) -> None:
        """``model``: the opened text model. Raises ``UnsupportedModel``."""
        M.mtmd_log_set(log().callback, None)
        M.mtmd_helper_log_set(log().callback, None)
        params = M.mtmd_context_params_default()
        params.use_gpu = on_device
        params.n_threads = threads
        params.print_timings = False
        self._context = M.mtmd_init_from_file(path.encode(), model, params)
        if not self._context:
            raise UnsupportedModel(f"llama.cpp cannot load the projector: {log().errors()}")

    def read(self, parts: Sequence[str | bytes]) -> list[int | Media]:
        """Token ids, and for each medium one ``Media`` or more (a large picture has tiles).

        Raises ``BackendError`` for what is neither picture nor sound, or not for this model.
        """
        texts: list[Any] = []
        bitmaps: list[Any] = []
        array = (ctypes.POINTER(M.mtmd_input_part) * len(parts))()
        try:
            for n, part in enumerate(parts):
                entry = M.mtmd_input_part()
                if isinstance(part, bytes):
                    bitmaps.append(self._bitmap(part))
                    entry.bitmap = bitmaps[-1]
                else:
                    texts.append(_text(part))
                    entry.text = ctypes.pointer(texts[-1])
                array[n] = ctypes.pointer(entry)
            chunks = M.mtmd_input_chunks_init()
            try:
                if M.mtmd_tokenize_from_parts(self._context, chunks, array, len(parts), True):
                    raise BackendError(f"the model cannot take these media: {log().errors()}")
                digests = [hashlib.sha256(p).hexdigest() for p in parts if isinstance(p, bytes)]
                return list(_contents(chunks, "".join(digests)))
            finally:
                M.mtmd_input_chunks_free(chunks)
        finally:
            for bitmap in bitmaps:
                M.mtmd_bitmap_free(bitmap)

    def _bitmap(self, data: bytes) -> Any:
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        bitmap = M.mtmd_helper_bitmap_init_from_buf(self._context, buffer, len(data), False)
        if not bitmap:
            raise BackendError("Failed to load image or audio file")
        return bitmap

    def compute(self, context: Any, sequence: int, row: Row, batch: int) -> None:
        """Encode a medium and put it into the cache of a sequence, ``batch`` tokens at a time."""
        assert row.media is not None
        chunk = row.media.content.pointer
        if M.mtmd_encode_chunk(self._context, chunk):
            raise BackendError(f"a picture could not be encoded: {log().errors()}")
        end = M.llama_cpp.llama_pos()
        code = M.mtmd_helper_decode_image_chunk(
            self._context,
            context,
            chunk,
            M.mtmd_get_output_embd(self._context),
            row.position,
            sequence,
            batch,
            ctypes.byref(end),
            M.mtmd_helper_post_decode_callback(),
            None,
        )
        if code:
            raise BackendError(f"a picture could not be computed ({code}): {log().errors()}")

    def close(self) -> None:
        M.mtmd_free(self._context)


class Chunk:
    """A medium as mtmd has it."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        weakref.finalize(self, M.mtmd_input_chunk_free, pointer)


def _contents(chunks: Any, digest: str) -> Iterator[int | Media]:
    count = ctypes.c_size_t()
    for n in range(M.mtmd_input_chunks_size(chunks)):
        chunk = M.mtmd_input_chunks_get(chunks, n)
        if M.mtmd_input_chunk_get_type(chunk) == _TEXT:
            tokens = M.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            yield from tokens[: count.value]
        else:
            positions = M.mtmd_input_chunk_get_n_pos(chunk)
            yield Media(f"{digest}.{n}", positions, Chunk(M.mtmd_input_chunk_copy(chunk)))


def _text(part: str) -> Any:
    data = part.encode("utf-8", "replace")
    return M.mtmd_input_text(text=data, text_len=len(data), add_special=True, parse_special=True)

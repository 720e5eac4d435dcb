"""Pictures and sounds in prompts, where an engine reads them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lhama.plugins.backend import BackendError, Engine, Media, ReadsMedia, Row
from lhama.plugins.testing.driver import Driver, Stream
from lhama.plugins.testing.subject import Subject
from lhama.plugins.testing.suite import Suite, need


class Pictures(Suite):
    """``ReadsMedia``."""

    @pytest.fixture(scope="class")
    @classmethod
    def seeing(cls, subject: Subject) -> Iterator[Engine]:
        need(subject.seeing is not None, "a model that reads media")
        engine = subject.load(subject.seeing)
        yield engine
        engine.close()

    def read(self, engine: Engine, subject: Subject, before: str = "Look: ") -> list[int | Media]:
        assert isinstance(engine, ReadsMedia)
        return engine.read_prompt([before, subject.picture, " What is it?"])

    def test_an_engine_that_reads_media_says_so(self, seeing: Engine) -> None:
        assert "media" in seeing.limits.features
        assert isinstance(seeing, ReadsMedia)

    def test_a_picture_stands_between_the_texts(self, subject: Subject, seeing: Engine) -> None:
        parts = self.read(seeing, subject)
        media = [part for part in parts if isinstance(part, Media)]
        assert media
        assert all(part.positions > 0 for part in media)
        assert not isinstance(parts[-1], Media)

    def test_equal_pictures_have_equal_digests(self, subject: Subject, seeing: Engine) -> None:
        first, second = (
            [part.digest for part in self.read(seeing, subject) if isinstance(part, Media)]
            for _ in range(2)
        )
        assert first == second

    def test_what_is_no_picture_is_refused(self, seeing: Engine) -> None:
        assert isinstance(seeing, ReadsMedia)
        with pytest.raises(BackendError):
            seeing.read_prompt(["Look: ", b"this is no picture", " What is it?"])

    def test_an_answer_to_a_picture_repeats(self, subject: Subject, seeing: Engine) -> None:
        assert self.answer(seeing, subject) == self.answer(seeing, subject)

    def answer(self, engine: Engine, subject: Subject) -> int:
        """The first token after a prompt with a picture, row by row as the core has it."""
        driver, stream = Driver(engine), Stream(0, [], 1)
        admits, kv = [driver.admit(stream)], [driver.first(Stream(0, [], 1))[1]]
        position, text, last = 0, list[int](), 0
        for part in [*self.read(engine, subject), None]:
            if isinstance(part, int):
                text.append(part)
                continue
            if text:
                samples = part is None
                row = Row(0, stream.epoch, position, tuple(text), sample=samples)
                rows = driver.step([row], kv, admits).rows
                last = rows[0].token if samples else last
                position, text, kv, admits = position + len(text), [], [], []
            if isinstance(part, Media):
                row = Row(0, stream.epoch, position, sample=False, media=part)
                driver.step([row], kv, admits)
                position, kv, admits = position + part.positions, [], []
        return last

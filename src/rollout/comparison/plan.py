"""What a comparison consists of: its images, maps and families of measures, cut into jobs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rollout.comparison.candidates import Candidate
from rollout.comparison.sources import CROWD, Scenes, Source

WHERE, WHAT_IF, TOKENS, PIXELS = "where", "what_if", "tokens", "pixels"
RANDOMISATION = "randomisation"
# How many images a family of measures sees at most; some cost a hundred passes for each map.
MOST: dict[str, int | None] = {
    WHERE: None,
    WHAT_IF: 150,
    TOKENS: 60,
    PIXELS: 25,
    RANDOMISATION: 30,
}
FAMILIES = tuple(MOST)
# Methods that cost ten passes and more for one map see no image beyond these.
DEAR = {"gradient_flow": 100}
# Close together at first: an object has some seven hundredths of the patches.
STEPS = (0.025, 0.05, 0.1, 0.2, 0.5, 0.9)


@dataclass(frozen=True)
class Job:
    """Some images measured in one way: one part of the table."""

    number: int
    family: str
    images: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that decides the numbers of a comparison.

    Attributes:
        source: the images of all families but `what_if`.
        families: to how many of the first images each is applied.
        steps: shares of the patches, or pixels, that go or come back, between none and all.
    """

    source: Source
    candidates: tuple[Candidate, ...]
    families: Mapping[str, int]
    batch_size: int
    steps: tuple[float, ...] = STEPS

    @property
    def crowd(self) -> Scenes:
        """Scenes of many objects, for `what_if`."""
        assert isinstance(self.source, Scenes)
        return Scenes(self.source.seed + 1, self.families[WHAT_IF], CROWD)

    def jobs(self) -> Iterator[Job]:
        """Always the same, with the same numbers."""
        number = 0
        for family, count in self.families.items():
            for start in range(0, count, self.batch_size):
                images = tuple(range(start, min(start + self.batch_size, count)))
                yield Job(number, family, images)
                number += 1

    def of(self, job: Job) -> "Plan":
        """The same without the maps that are too dear for these images."""
        kept = [
            one for one in self.candidates if job.images[0] < DEAR.get(one.method, len(self.source))
        ]
        return replace(self, candidates=tuple(kept))

    def description(self) -> dict[str, Any]:
        """As plain JSON, for the file of settings."""
        return {
            "images": self.source.description(),
            "maps": [asdict(one) for one in self.candidates],
            "families": dict(self.families),
            "dear": DEAR,
            "batch_size": self.batch_size,
            "steps": list(self.steps),
        }


def count_images(
    source: Source, families: Sequence[str], most: Mapping[str, int | None]
) -> dict[str, int]:
    """How many images each family sees.

    Raises:
        ValueError: an unknown family, or one that needs scenes and was given something else.
    """
    unknown = [name for name in (*families, *most) if name not in FAMILIES]
    if unknown or not families:
        raise ValueError(f"measures must be some of {', '.join(FAMILIES)}; got {unknown}")
    if WHAT_IF in families and not isinstance(source, Scenes):
        raise ValueError(
            f"{WHAT_IF} draws scenes again without one object, which no photograph allows; leave "
            "it out of the measures"
        )
    limits = {**MOST, **most}
    counts = {name: limits[name] for name in FAMILIES if name in families}
    return {
        name: len(source) if limit is None else min(limit, len(source))
        for name, limit in counts.items()
    }

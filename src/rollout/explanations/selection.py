"""Which blocks and heads count."""

from rollout.errors import shown
from rollout.maths.block_sequence import BlockSequence
from rollout.settings import Settings, check_start_block, is_index


def select(blocks: BlockSequence, settings: Settings) -> BlockSequence:
    """The blocks and the head that settings ask for.

    Raises:
        ValueError: there are no such blocks, or no such head.
    """
    start, end = settings.start_block, settings.end_block
    end = len(blocks) if end is None else end
    check_start_block(start, len(blocks))
    if not is_index(end) or not start < end <= len(blocks):
        raise ValueError(
            f"end_block must be in [{start + 1}, {len(blocks)}] for {len(blocks)} blocks, the first"
            f" being {start}; got {shown(end)}"
        )
    blocks = blocks[start:end]
    return blocks if settings.head is None else blocks.one_head(settings.head)

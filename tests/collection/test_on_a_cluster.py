"""Collections on worker processes: they die, commands are killed, interrupted, given twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from image_files import write_images
from PIL import Image

from rollout import collect
from rollout.collection import cluster
from rollout.collection.cluster import open_engine
from rollout.collection.engine import Lost, held
from rollout.collection.shards import read_table

pytestmark = pytest.mark.slow
PATIENCE = 240


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """`rollout ...` in a session of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "rollout", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def until(happens: Callable[[], bool], command: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it never happened"
        assert command is None or command.poll() is None, command.communicate()
        time.sleep(0.05)


def workers_of(command: subprocess.Popen[str]) -> list[psutil.Process]:
    return list(filter(_works, psutil.Process(command.pid).children(recursive=True)))


def _works(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has just ended
        return False


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*"))


def test_a_thousand_images_twenty_faults_two_kills_and_a_resume(checkpoint, tmp_path):
    write_images(tmp_path / "photos", 1000, broken=20)
    out = tmp_path / "maps"
    arguments = ("collect", tmp_path / "photos", "--model", "test_vit", "--checkpoint", checkpoint)
    arguments += ("--out", out, "--shard-size", 40, "--workers", 2, "--target", "0,predicted")
    first = start(*arguments)
    until(lambda: len(parts(out)) >= 2, first)
    workers_of(first)[0].kill()  # as the system does when memory runs out
    before = len(parts(out))
    until(lambda: len(parts(out)) >= before + 2, first)
    left = workers_of(first)
    first.kill()
    first.communicate()
    psutil.wait_procs(left, timeout=PATIENCE)
    assert not any(worker.is_running() for worker in left)
    kept = {name: (out / name).stat().st_mtime_ns for name in parts(out)}
    assert 4 <= len(kept) < 25

    again = start(*arguments)
    said, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert f"{1000 - 40 * len(kept)} images now" in said and "20 with an error" in said
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    table = read_table(out)
    per_image = table.groupby("image")
    assert (per_image.ngroups, int(table["error"].notna().sum())) == (1000, 20)
    assert per_image.size().value_counts().to_dict() == {2: 980, 1: 20}
    assert table.drop_duplicates("image")["path"].is_unique
    assert not list(out.glob(".*"))


def test_ctrl_c_ends_it_with_a_sentence_and_whole_parts(checkpoint, tmp_path):
    write_images(tmp_path / "photos", 1500)
    out = tmp_path / "maps"
    command = start(
        *("collect", tmp_path / "photos", "--model", "test_vit", "--checkpoint", checkpoint),
        *("--out", out, "--shard-size", 20, "--workers", 2),
    )
    until(lambda: len(parts(out)) >= 1, command)
    with pytest.raises(RuntimeError, match="is being filled by another run"):
        collect("demo", tmp_path / "photos", out, workers=0)
    workers = workers_of(command)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does, to all of them
    _, errors = command.communicate(timeout=PATIENCE)
    assert command.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("rollout: error: interrupted")
    assert "Traceback" not in errors
    psutil.wait_procs(workers, timeout=PATIENCE)
    assert not any(worker.is_running() for worker in workers)
    rows = read_table(out)
    assert len(rows) == 20 * len(parts(out)) and rows["error"].isna().all()


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        raise OSError(28, "No space left on device")
    return number * held()


def test_a_job_that_kills_three_workers_is_given_up_and_the_others_are_done():
    with open_engine(2, value=10, dashboard=False) as engine:
        results = dict(engine.run(die, iter([0, 1, 2, 3, 5, 6, 7])))
        lost = results.pop(3)
        assert isinstance(lost, Lost) and lost.reason.startswith("3 workers died on this")
        assert results == {number: 10 * number for number in (0, 1, 2, 5, 6, 7)}
        with pytest.raises(OSError, match="No space left"):
            list(engine.run(die, [4]))


def test_an_image_that_takes_the_workers_memory(checkpoint, tmp_path, monkeypatch):
    """Killed three times for it, its shard is given up; the others are done."""
    write_images(tmp_path / "photos", 6)
    Image.new("L", (13_000, 13_000)).save(tmp_path / "photos" / "0003.png")  # 500 MB as RGB
    small = partial(cluster.LocalCluster, memory_limit="1400MB")  # it begins with about 900
    monkeypatch.setattr(cluster, "LocalCluster", small)
    said = []
    options = {"workers": 1, "shard_size": 2, "progress": False, "checkpoint": checkpoint}
    options["announce"] = said.append
    found = collect("test_vit", tmp_path / "photos", tmp_path / "maps", **options)
    table = found.table()
    assert (found.images, found.rows, found.errors) == (6, 6, 2)
    assert table["error"].notna().tolist() == [False, False, True, True, False, False]
    assert table["error"][3].startswith("3 workers died on this shard")
    assert len(said) == 1 and ("bokeh" in said[0] or "http://" in said[0])


def test_a_cluster_that_exists_and_its_end(model, photos, tmp_path):
    address = tmp_path / "address"
    code = (
        "import sys, time; from distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)\n"
        "    open(sys.argv[1], 'w').write(cluster.scheduler_address)\n"
        "    time.sleep(600)\n"
    )
    script = tmp_path / "cluster.py"
    script.write_text(code)
    existing = subprocess.Popen([sys.executable, script, address], start_new_session=True)
    try:
        until(lambda: address.exists() and bool(address.read_text()))
        options = {"scheduler": address.read_text(), "progress": False, "shard_size": 4}
        collected = collect(model, photos, tmp_path / "maps", **options)
        assert (collected.images, collected.errors) == (10, 0)
        with open_engine(scheduler=address.read_text(), value=10, dashboard=False) as engine:
            results = engine.run(time.sleep, iter([0.2] * 100))
            assert next(results) == (0.2, None)
            os.killpg(existing.pid, signal.SIGKILL)
            with pytest.raises(ConnectionError, match="scheduler at tcp.* is gone; the same comm"):
                list(results)
        with pytest.raises(ConnectionError, match="there is no Dask scheduler at tcp"):
            collect(model, photos, tmp_path / "other", **options)
    finally:
        existing.kill()
        existing.wait()

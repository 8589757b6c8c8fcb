"""A run's folder: which run it holds, whether that can go on, and with what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from duomod.config import train_config
from duomod.console import say
from duomod.errors import InputError
from duomod.preprocessing.store import CaseRecord, Store
from duomod.training.checkpoint import read_checkpoint
from duomod.training.load import resumed_state
from duomod.training.model_info import ModelInfo
from duomod.workspace import CONFIG, METRICS, TRAINED, read_yaml, write_text

#: What config.yaml says of the machine. Another one changes the last bits of the numbers, not what is trained.
MACHINE = "machine"

#: What a case is known by, wherever its data set lies.
_OF_A_CASE = ("case_id", "role", "labelled", "modality", "shape", "voxels", "intensity", "image_sha256", "label_sha256")

Condition = Literal["new", "unfinished", "complete"]


def data_sha256(store: Store) -> str:
    """What a data set is known by: its description and its cases, with the hashes of the scans they were made of."""

    def facts(record: CaseRecord) -> dict[str, Any]:
        return record.model_dump(mode="json", include=set(_OF_A_CASE))

    content = {
        # Without what is at its default, so that a description of a later version, which can say more, is the same.
        "spec": store.spec.model_dump(mode="json", exclude_defaults=True),
        "channels": store.channels,
        "cases": [facts(store.cases[case]) for case in sorted(store.cases)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def machine(device: torch.device) -> dict[str, Any]:
    """What config.yaml says of this machine: threads, device and torch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"threads": torch.get_num_threads(), "device": name, "torch": str(torch.__version__)}


def prepared(folder: Path, resolved: dict[str, Any], resume: bool, overwrite: bool) -> tuple[Condition, dict[str, Any]]:
    """Make a folder ready for a run, and say what it holds and the content of its ``config.yaml``.

    Args:
        folder: The run's folder, which nobody else writes to.
        resolved: All settings of the run, for ``config.yaml``.
        resume: An unfinished run may go on.
        overwrite: Whatever run the folder holds, it goes.

    Raises:
        InputError: the folder holds a run and neither ``resume`` nor ``overwrite`` is given, its settings or data are
            others, or it is damaged.
    """
    config, last, best = folder / CONFIG, folder / "ckpts" / "last.pth", folder / "ckpts" / "best_model.pth"
    complete = (folder / TRAINED).is_file()
    if overwrite or not (last.is_file() or complete):
        for old in (folder / TRAINED, last, best, folder / METRICS):
            old.unlink(missing_ok=True)
        write_text(config, yaml.safe_dump(resolved, sort_keys=False))
        if resume:
            say(f"{folder}: nothing to resume; starting from the beginning")
        return "new", resolved
    stored = _stored(config)
    _demand_same(folder, stored, resolved)
    if complete:
        if not best.is_file():
            raise InputError(f"{folder}: this run is complete, but {best} is missing; --overwrite trains anew")
        return "complete", stored
    if not resume:
        raise InputError(f"{folder}: holds an unfinished run; add --resume to go on, or --overwrite to start anew")
    if stored["data_path"] != resolved["data_path"]:
        say(f"the same data as before, now in {resolved['data_path']} (before: {stored['data_path']})")
        stored = {**stored, "data_path": resolved["data_path"]}
        write_text(config, yaml.safe_dump(stored, sort_keys=False))
    return "unfinished", stored


def _stored(config: Path) -> dict[str, Any]:
    """The settings of the run that a folder holds.

    Raises:
        InputError: they are missing or damaged.
    """
    if not config.is_file():
        raise InputError(
            f"{config}: missing: nobody knows which run this is; put it back, or --overwrite to start anew"
        )
    stored = read_yaml(config)
    if not isinstance(stored, dict) or not isinstance(stored.get("train"), dict) or "data_path" not in stored:
        raise InputError(f"{config}: not the settings of a run; put the file back, or --overwrite to start anew")
    return stored


def _demand_same(folder: Path, stored: dict[str, Any], resolved: dict[str, Any]) -> None:
    """Check that a folder's run is the one that is asked for.

    Raises:
        InputError: names every setting that differs.
    """
    # What a run begun before its networks were recorded cannot say, its checkpoint does.
    before = {"networks": resolved["networks"], **_as_written_now(stored)}
    changed = []
    if "data_sha256" not in before:  # begun before data were known by their content: by their place, then
        before["data_sha256"] = resolved["data_sha256"]
    elif before["data_sha256"] == resolved["data_sha256"]:
        before["data_path"] = resolved["data_path"]
    else:
        changed.append(f"  data_path: {resolved['data_path']} does not hold the data that the run was begun with")
        before["data_sha256"], before["data_path"] = resolved["data_sha256"], resolved["data_path"]
    before[MACHINE] = resolved[MACHINE]
    changed += _differences(before, resolved)
    if changed:
        raise InputError(
            [
                f"{folder}: holds a run with other settings; give another --output_dir, or --overwrite to replace it",
                *changed,
            ]
        )


def _as_written_now(stored: dict[str, Any]) -> dict[str, Any]:
    """A run's ``config.yaml`` with its augmentation as a list, which version 0.1 wrote as single settings."""
    augment = stored["train"].get("augment", {})
    if not isinstance(augment, dict) or "transforms" in augment:
        return dict(stored)
    # The preset says where its flips come from, which no setting of version 0.1 did.
    now = train_config(str(stored.get("preset", "default")), {"augment": augment}).augment
    return {**stored, "train": {**stored["train"], "augment": now.model_dump(mode="json")}}


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in {**old, **new} for line in _differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [f"  {path.lstrip('.')}: was {old}, now {new}"]


def saved_state(folder: Path, info: ModelInfo) -> dict[str, Any]:
    """What ``ckpts/last.pth`` holds to go on from.

    Raises:
        InputError: it is damaged, or not a run's last state; names what is left.
    """
    last, best = folder / "ckpts" / "last.pth", folder / "ckpts" / "best_model.pth"
    try:
        state = resumed_state(last, info)
        problem = f"{last}: holds a model, but nothing to go on from" if state is None else ""
    except InputError as error:
        state, problem = None, str(error)
    if state is not None:
        if state.get("state", {}).get("best_dice", -1.0) >= 0 and not best.is_file():
            raise InputError(f"{best}: missing, though the run has validated; put it back, or --overwrite trains anew")
        return state
    try:
        read_checkpoint(best)
        left = f"{best} is whole and can be predicted with"
    except InputError:
        left = "there is no other checkpoint"
    raise InputError(f"{problem}; {left}; --overwrite trains anew")


@contextmanager
def as_on(before: dict[str, Any], now: dict[str, Any]) -> Iterator[None]:
    """Compute with as many threads as a run was begun with; say what differs and cannot be undone.

    Args:
        before: What the run's ``config.yaml`` says of the machine; empty where the run is older than that.
        now: The same of this machine.
    """
    threads = before.get("threads", now["threads"])
    if threads != now["threads"]:
        say(f"computing with {threads} threads, as this run was begun (here they would be {now['threads']})")
    for name in ("device", "torch"):
        if before.get(name, now[name]) != now[name]:
            say(f"begun with {name} {before[name]}, now {now[name]}: the last digits will not be the same")
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(now["threads"])

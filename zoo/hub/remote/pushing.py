"""Uploads artifacts to the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.core.shown import shown
from zoo.hub.locating import read_files
from zoo.hub.manifest import MANIFEST_NAME, describe, digest, require, to_json
from zoo.hub.reading import parse_tensors, read_texts
from zoo.hub.remote.addresses import parse_address
from zoo.hub.remote.hub_card import hub_card
from zoo.hub.remote.hugging_face import hub_client


def push(
    artifact: str | os.PathLike[str],
    address: str,
    *,
    license: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Uploads an artifact to a repository of the Hugging Face Hub, in one commit.

    The repository is created if it does not exist. The card gets the hub's metadata: licence, library, tags, dataset
    and the numbers on the test split. Other files in the repository stay. Needs `pip install 'tfp_bnn[hub]'`, and a
    login with `hf auth login` or a token in `HF_TOKEN`. All files are published, also `golden.safetensors` with a few
    inputs, by default the first four rows of the test split.

    Args:
        artifact: Folder of the artifact, or name of a bundled model. Its files are verified first.
        address: `hf://user/name`, or `hf://user/name@branch` for another branch than the main one.
        license: Licence under which the model is published, as an identifier of SPDX, such as `"Apache-2.0"`. Default:
            that of the artifact.
        private: Whether a new repository is private. An existing one stays as it is.
        message: Message of the commit.

    Returns:
        The address of this commit, with the SHA-256 of the manifest: `hf://user/name@<commit>#sha256=<hash>`. It always
        leads to the same files.

    Raises:
        ArtifactError: If a file of the artifact is missing, changed or malformed.
        ValueError: For another kind of address, without a licence, or if `huggingface_hub` is not installed.
        ConnectionError: If the hub cannot be reached or refuses. Nothing is published then.
    """
    target = parse_address(address)
    if target.repository is None or target.sha256 is not None:
        raise ValueError(f"Got the address {shown(address)}; expected hf://user/name or hf://user/name@branch.")
    folder, entry, files = read_files(artifact)
    texts = read_texts(files, folder)
    license = license or texts["config"].get("license")
    if not license:
        raise ValueError(
            f"{str(artifact)!r} does not state under which licence it may be used. Pass license='Apache-2.0', for "
            "example (on the command line: --license Apache-2.0)."
        )
    if license != texts["config"].get("license"):
        texts = _relicensed(files, texts, license, folder)
        files["config.json"] = to_json(texts["config"]).encode()
    files["README.md"] = hub_card(target.repository, texts, license).encode()
    manifest = to_json({**entry, "files": describe(files)}).encode()
    files[MANIFEST_NAME] = manifest
    commit = _commit(target.repository, target.revision, files, private, message or f"Upload {texts['config']['name']}")
    return f"hf://{target.repository}@{commit}#sha256={digest(manifest)}"


def _relicensed(files: dict[str, bytes], texts: dict[str, Any], license: str, folder: Path) -> dict[str, Any]:
    """Returns the texts of an artifact with another licence in its config and on its card."""
    # Not at the top, because they import TensorFlow.
    from zoo.hub.cards import model_card
    from zoo.hub.members import number_of_members, split_records

    config = {**texts["config"], "license": license}
    weights = folder / "weights.safetensors"
    arrays = parse_tensors(require(files, weights.name, folder), str(weights))
    records = split_records(arrays, number_of_members(config, str(folder)))
    return {**texts, "config": config, "card": model_card(config, texts["metrics"], texts["recipe"], *records)}


def _commit(repository: str, branch: str | None, files: dict[str, bytes], private: bool, message: str) -> str:
    """Publishes files in one commit and returns its hash."""
    hub = hub_client()
    api = hub.HfApi(library_name="tfp_bnn")
    operations = [hub.CommitOperationAdd(name, data) for name, data in files.items()]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        return str(api.create_commit(repository, operations, commit_message=message, revision=branch).oid)
    except ValueError:
        raise
    except Exception as error:
        # Those of its HTTP library, which is another one in each of its major versions.
        raise ConnectionError(
            f"hf://{repository} was not written: {type(error).__name__} {shown(str(error), 600)}. Log in with `hf auth "
            "login`, or set HF_TOKEN to a token that may write there."
        ) from error

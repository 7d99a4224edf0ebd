"""The Hugging Face Hub, by its own client `huggingface_hub`: an optional package."""

from __future__ import annotations

import importlib
from typing import Any

from zoo.core.shown import shown
from zoo.hub.manifest import MANIFEST_NAME
from zoo.hub.remote.addresses import Address
from zoo.hub.remote.downloading import SECONDS_OF_SILENCE, RefusedError, UnreachableError

# Of HTTP: from here on, it is the server that fails.
_FAILURE = 500


def hub_client() -> Any:
    """Returns the package `huggingface_hub`.

    Raises:
        ValueError: If it is not installed. The message has the command that installs it.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(
            f"Addresses hf:// need the package huggingface_hub, which cannot be imported ({error}). Install it with: "
            "pip install 'tfp_bnn[hub]'"
        ) from error


def place_of(address: Address) -> tuple[str, dict[str, str]]:
    """Returns the https address of the folder of an artifact, and the headers to ask for its files with.

    A revision of a repository is resolved to its commit, so that all files are of one. The headers have the token of
    whoever is logged in to the hub.

    Raises:
        UnreachableError: If the hub does not answer.
        RefusedError: If it has no such repository or revision, or only for others.
        ValueError: If `huggingface_hub` is not installed.
    """
    if address.url is not None:
        return address.url, {}
    hub = hub_client()
    api = hub.HfApi(library_name="tfp_bnn")
    try:
        found = api.model_info(address.repository, revision=address.revision, timeout=SECONDS_OF_SILENCE)
    except hub.errors.HfHubHTTPError as error:
        reason = shown(str(error), 400)
        if error.response.status_code >= _FAILURE:
            raise UnreachableError(reason) from error
        raise RefusedError(f"{reason}. Check name and revision; a private repository needs `hf auth login`") from error
    except hub.errors.HFValidationError as error:
        raise RefusedError(shown(str(error), 400)) from error
    except Exception as error:
        # Those of its HTTP library, which is another one in each of its major versions.
        raise UnreachableError(f"{type(error).__name__} {shown(str(error), 400)}") from error
    url = hub.hf_hub_url(address.repository, MANIFEST_NAME, revision=found.sha)
    return url.removesuffix(f"/{MANIFEST_NAME}"), hub.utils.build_hf_headers(library_name="tfp_bnn")

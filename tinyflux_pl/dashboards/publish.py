"""Create a workspace in a W&B project, or update the one that this command created."""

from __future__ import annotations

import json
from typing import Any


def internal_name(key: str) -> str:
    """W&B's name of the view, by which it is found again; people see the display name."""
    return f"nw-tinyflux{key}-v"


def request(workspace: Any) -> dict[str, Any]:
    """The request that creates the workspace, without W&B's ids."""
    spec = workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return {
        "entityName": workspace.entity,
        "projectName": workspace.project,
        "displayName": workspace.name,
        "spec": json.loads(spec),
    }


def publish(workspace: Any, key: str) -> str:
    """Send the workspace; returns its address.

    An existing view is replaced by what the code says: panels that people added by hand are lost.
    """
    workspace._internal_name = internal_name(key)
    workspace._internal_id = _existing_id(workspace)
    workspace.save()
    return workspace.url


def _existing_id(workspace: Any) -> str:
    """W&B's id of the view of this name; empty if there is none."""
    from wandb_workspaces.workspaces import internal

    try:
        view = internal.View.from_name(
            workspace.entity, workspace.project, workspace._internal_name
        )
    except ValueError as error:
        if "Workspace" not in str(error):  # the project itself was not found
            raise
        return ""
    return view.id

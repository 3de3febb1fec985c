"""ComfyUI as the nodes use it: folders, memory, progress, and CLIPs as state dicts. Nothing else imports `comfy`."""

"""Workflows of the pack, a client that runs them on a real ComfyUI, and the `sage-demo` command.

Installed as the import package `sage_core.demo`; ComfyUI itself reads only the JSON and JPG files beside this one.
"""

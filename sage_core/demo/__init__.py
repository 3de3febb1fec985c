"""The demo, `sage-demo`: three trainings in a real ComfyUI, drawn and scored by the pack's own nodes."""

"""Grad-CAM, the validity tests of its maps, and the choice of panels."""

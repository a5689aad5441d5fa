"""Landmarks: labels of which only the place counts, drawn as dots, and files with points beside the studies."""

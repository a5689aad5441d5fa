"""The real server as a process, driven over HTTP as the viewers drive it."""

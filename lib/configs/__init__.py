"""One TaskConfig per task, as in MONAI Label's own apps, and what `--conf` may say."""

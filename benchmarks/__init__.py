"""Speed, as ratios against the plain way in one run; `make bench` prints the table and writes JSON."""

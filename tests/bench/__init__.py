"""`make bench`: what DESIGN's table of speeds asks for, as ratios within one run."""

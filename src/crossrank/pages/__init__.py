"""A run or a sweep on one page of HTML: strings, from what `analysis` finds."""

"""The call in a browser: the page, the calls that are going on, their recordings, and what an operator looks at."""

"""The filters of hooks, which decide by the fields of an event whether a hook receives it."""

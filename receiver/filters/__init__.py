"""The filters of hooks: the conditions that an event has to meet for a hook to receive it."""

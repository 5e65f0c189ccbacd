"""The scheduler: tasks and the keeper's memory as pure state machines, and the thin service that runs them."""

if __name__ != "nahanni_compute.scheduler":
    raise ImportError("import nahanni_compute.scheduler; the link at the checkout's root is for reading")

"""HTTP: REST and live events. Thin: the rules live in store and nas_core, the shapes in skyline.schemas."""

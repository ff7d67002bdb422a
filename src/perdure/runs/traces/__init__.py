"""A run as one OpenTelemetry trace, whatever processes it lives in. Outside a run: nothing."""

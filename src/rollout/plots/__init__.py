"""Pictures: functions take axes and return axes."""

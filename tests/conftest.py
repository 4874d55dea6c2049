"""Fixtures that all tests share."""

from tests.servers import rclone, seaweedfs

__all__ = ["rclone", "seaweedfs"]

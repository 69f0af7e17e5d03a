"""Sinks that pass items on instead of loading them: to an SNS topic, an SQS queue or objects in S3.

What is published is the item's JSON, with nothing around it. Its version does not travel with it:
whoever receives it goes by the time of publishing. Each sink is given a client of its service, whose
connections bound how much goes out at once.
"""

from stacworker.load.publish.bucket import Bucket
from stacworker.load.publish.lines import NdjsonSink
from stacworker.load.publish.messages import SnsSink, SqsSink
from stacworker.load.publish.objects import S3Sink
from stacworker.load.publish.overflow import Overflow

__all__ = ["Bucket", "NdjsonSink", "Overflow", "S3Sink", "SnsSink", "SqsSink"]

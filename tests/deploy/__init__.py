"""The chart and the manifests of deploy/k8s; scripts/chart brings what these tests need."""

//! What Starling asks of Kubernetes.

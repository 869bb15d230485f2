"""What is slow and how slow: each module prints ratios against a peer measured in the same run."""

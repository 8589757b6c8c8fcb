"""Stage 8: from a trained model and a scan to a label map on the scan's own grid."""

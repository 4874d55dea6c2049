"""What an increment costs and keeps on real data, beside simpler methods and the full retrain."""

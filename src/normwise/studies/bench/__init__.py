"""The benchmark: our layers, torch's own and the peers that are installed, side by side in one process.

| file | what is in it |
|---|---|
| contenders | a case, the ways to compute it, how far their results lie apart, what they save |
| cases | every case |
| rivals | the usual ways to do what our layers do |
| timing | contenders in turn, ratios within a round, the memory floor |
"""

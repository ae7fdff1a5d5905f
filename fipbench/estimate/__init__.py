"""What a run would take, before it starts.

`total.estimate` puts together what the other modules know: `counts` of the network on torch's meta device, the `work`
that task and budget imply, a `rehearsal` of each method and a few timed steps (`calibrate`), `devices` by their data
sheets. `fits` refuses what no memory here can hold. `fits` and `work` need no torch.
"""

"""OTP behaviours on the runtime: calls and servers, supervisors, net_kernel, and the node that has them all."""

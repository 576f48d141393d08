// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice One question is one stretch of training: from the state that `before` commits to, does the
/// job give the checkpoint root `claimed`?
struct Question {
    /// keccak256(abi.encode(chain id at deployment, escrow, dispute number, lease, tip that the questioned roots lead to,
    /// k, ground)): unique, and of this question only.
    bytes32 id;
    bytes32 lease;
    bytes32 job;
    bytes32 rules;
    address provider;
    address challenger;
    /// Index of the disputed checkpoint, absolute in the job, from 1.
    uint32 k;
    /// tip_{k-1}, left aligned. It commits to root_{k-1} and to everything before it, and the escrow
    /// always knows it (root_{k-1} itself may have been accepted without ever being on chain).
    bytes32 before;
    /// root_k as the provider claimed it, on chain or in a signed Claim.
    bytes32 claimed;
    /// 0: the root is wrong. 1: its data can't be had.
    uint8 ground;
}

/// @notice Rules on challenges. Named by the rules that both orders of a lease sign.
/// @dev A question whose `dispute` is gone from the escrow was withdrawn: an Approval of it was redeemed, and the fee
/// paid. The escrow pulls verdicts: no arbiter calls it or moves its money, except its own fees with `withdraw`.
interface IArbiter {
    /// @notice Called by the escrow within `challenge`. A revert refuses the challenge.
    function open(Question calldata question) external;

    /// @return 0 none yet; 1 the claim is true; 2 it is false; 3 void: it is not what others get, but whoever wrote the
    /// program could have made it so; 4 unreproducible: the arbiter's own runs differ. Fixed once it is not 0.
    /// @dev Of what a verdict costs whom, docs/protocol.md, section 5.
    function verdict(bytes32 id) external view returns (uint8);
}

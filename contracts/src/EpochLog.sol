// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A market's word on what it matched from
/// @notice A market publishes the root of each epoch's order set before it opens leases, so that anyone who has the
/// set can clear it again. Markets are told apart by the address that publishes.
contract EpochLog {
    event EpochPublished(address indexed market, uint64 indexed epoch, bytes32 orderSetRoot);

    error EpochLog_NotHigher(uint64 newest, uint64 epoch);

    /// The newest epoch of each market. 0: none yet.
    mapping(address market => uint64) public newest;

    /// @notice Epochs count from 1 and may skip, but never go back: a set once published can't be replaced.
    function publish(uint64 epoch, bytes32 orderSetRoot) external {
        if (epoch <= newest[msg.sender]) revert EpochLog_NotHigher(newest[msg.sender], epoch);

        newest[msg.sender] = epoch;
        emit EpochPublished(msg.sender, epoch, orderSetRoot);
    }
}

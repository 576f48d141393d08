// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Bid, IEscrow, Match, Parties, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {Test} from "./Test.sol";

/// @notice Terms, ids and tips from the protocol's text, not with the escrow's libraries.
abstract contract Protocol is Test {
    // The status byte: a phase and flags.
    uint8 internal constant ACTIVE = 1;
    uint8 internal constant CLOSING = 2;
    uint8 internal constant CLOSED = 3;
    uint8 internal constant CHALLENGED = 4;
    uint8 internal constant FROM_CLOSING = 0x08;
    uint8 internal constant BY_CLIENT = 0x10;
    uint8 internal constant LATE = 0x20;
    uint8 internal constant MORE = 0x40;
    uint8 internal constant CLAIMED_IN_CLOSING = 0x80;

    /// @dev The terms of a match under rules `r`, from the index `start`.
    /// @param bidId the Bid's EIP-712 digest
    function _termsUnder(Rules memory r, Match memory item, bytes32 bidId, uint256 start)
        internal
        pure
        returns (Terms memory terms)
    {
        Bid memory bid = item.bid;
        uint256 end = start + item.ask.maxCheckpoints;
        if (end > bid.checkpoints) end = bid.checkpoints;
        terms.provider = item.ask.provider;
        terms.nums = uint256(
            bytes32(abi.encodePacked(uint16(start), uint16(end), r.window, r.checkpointTimeout, item.price, bid.fee))
        );
        // Rounded up; where that has more than 96 bits, no price is enough.
        uint256 units = item.ask.unitsPerHour;
        terms.askPrice = uint96((uint256(item.ask.pricePerHour) * bid.units + units - 1) / units);
        Parties memory parties = terms.parties;
        parties.bid = bidId;
        parties.job = bid.job;
        parties.rules = bid.rules;
        parties.client = bid.client;
        parties.approver = bid.approver == address(0) ? bid.client : bid.approver;
        parties.feeTo = bid.matcher;
        parties.stake = bid.stake;
        if (item.prevProvider != address(0)) {
            // The previous lease had the same parties, but for its own prev.
            parties.prev = item.prevPrev;
            parties.prev = keccak256(
                abi.encode(item.prevProvider, item.prevNums, item.prevAskPrice, _hash(parties))
            );
        }
    }

    function _id(Terms memory terms) internal pure returns (bytes32) {
        return keccak256(abi.encode(terms.provider, terms.nums, terms.askPrice, _hash(terms.parties)));
    }

    function _hash(Parties memory parties) internal pure returns (bytes32) {
        return keccak256(abi.encode(parties));
    }

    function _freeIn(IEscrow escrow, address owner) internal view returns (uint256 free) {
        (free,,,) = escrow.account(owner);
    }

    /// @dev The tip that `roots` lead to from `tip`.
    function _extended(bytes20 tip, bytes32[] memory roots) internal pure returns (bytes20) {
        for (uint256 i; i < roots.length; ++i) {
            tip = bytes20(keccak256(abi.encodePacked(tip, roots[i])));
        }
        return tip;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Rules, Terms} from "../../src/interfaces/IEscrow.sol";
import {EscrowTest} from "./EscrowTest.sol";

/// @notice One lease on all of the default Bid.
abstract contract LeaseTest is EscrowTest {
    Terms internal terms;
    bytes32 internal lease;

    function setUp() public virtual override {
        super.setUp();
        _useLease(_opened());
    }

    /// @dev The tests' lease from here on.
    function _useLease(Terms memory other) internal {
        terms = other;
        lease = _id(other);
    }

    /// @dev The lease is over, n checkpoints were paid, the penalty went to the client, all else is back.
    function _assertPaid(uint256 n, uint256 penalty) internal view {
        assertEq(_free(provider), FUNDS + n * PRICE - penalty, "provider");
        assertEq(_free(matcher), n * FEE, "matcher");
        assertEq(_free(client), FUNDS + penalty - n * uint256(PRICE + FEE), "client");
        assertEq(_active(provider), 0, "active");
    }

    /// @dev The lease goes on, n checkpoints were paid.
    function _assertPaidSoFar(uint256 n) internal view {
        assertEq(_free(provider), FUNDS - STAKE + n * PRICE, "provider");
        assertEq(_free(matcher), n * FEE, "matcher");
    }
}

/// @notice Of that lease, checkpoint 1 is accepted, 2 and 3 are claimed.
abstract contract DisputeTest is LeaseTest {
    uint256 internal constant BOND = ARBITER_FEE + 2 * PRICE;
    /// The challenger's part of a convicted stake.
    uint256 internal constant REWARD = (STAKE - ARBITER_FEE) / 5;

    function setUp() public override {
        super.setUp();
        _redeem(terms, 1);
        _claim(terms, 2, 3);
    }

    /// @param tip where the questioned roots lead to
    function _disputeId(uint256 number, bytes20 tip, uint16 k, uint8 ground) internal view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(escrow), number, lease, tip, k, ground));
    }

    function _assertDispute(bytes32 id, address who, uint256 bond, bytes20 claimedTip) internal view {
        (bytes32 gotId, address gotChallenger, uint96 gotBond, bytes20 gotTip) = escrow.dispute(lease);
        assertEq(gotId, id, "dispute id");
        assertEq(gotChallenger, who, "dispute challenger");
        assertEq(gotBond, bond, "dispute bond");
        assertEq(bytes32(gotTip), bytes32(claimedTip), "dispute tip");
    }

    function _expectRulesMismatch(Rules memory other) internal {
        vm.expectRevert(
            abi.encodeWithSelector(
                IEscrow.Escrow_RulesMismatch.selector, escrow.hashRules(rules), escrow.hashRules(other)
            )
        );
    }
}

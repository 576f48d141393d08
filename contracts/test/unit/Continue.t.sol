// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, Bid, IEscrow, Match, Reason, Terms} from "../../src/interfaces/IEscrow.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";

/* open, with prev
 * ├── prev is no lease, or not of this Bid: PrevNotContinuable
 * ├── prev is Active, Closing, Challenged, complete or dead: PrevNotContinuable
 * ├── the Bid has expired: BidExpired
 * ├── the Bid's page was raised: opens all the same
 * └── prev is Closed: goes on from its accepted index and tip, frees its slot
 *     ├── prev was itself a continuation: likewise
 *     └── prev was complete, and the Bid goes on: likewise
 */
contract ContinueTest is EscrowTest {
    function test_PrevUnknown() external {
        Terms memory terms = _closedAt(2);
        Match memory item = _continue(_bid(), _ask(), terms);
        item.prevNums ^= 1;
        _refused(item);
        item.prevNums ^= 1;
        item.prevPrev = bytes32(uint256(1));
        _refused(item);
        item.prevPrev = 0;
        item.prevProvider = stranger;
        _refused(item);
    }

    function test_PrevOfAnotherBid() external {
        Terms memory terms = _closedAt(2);
        Bid memory bid = _bid();
        bid.stake -= 1;
        _refused(_continue(bid, _ask(), terms));
    }

    function test_PrevActive() external {
        Terms memory terms = _opened();
        _refused(_continue(_bid(), _ask(), terms));
    }

    function test_PrevClosing() external {
        Terms memory terms = _opened();
        _end(terms, provider);
        _refused(_continue(_bid(), _ask(), terms));
    }

    function test_PrevChallenged() external {
        Terms memory terms = _opened();
        _claim(terms, 1, 2);
        _challenge(terms, 0, 2, 1);
        _refused(_continue(_bid(), _ask(), terms));
    }

    function test_PrevComplete() external {
        Terms memory terms = _opened();
        _redeem(terms, CHECKPOINTS);
        _refused(_continue(_bid(), _ask(), terms));
    }

    function test_PrevEndedByClient() external {
        Terms memory terms = _opened();
        _end(terms, client);
        _closeAfterWindow(terms);
        _refused(_continue(_bid(), _ask(), terms));
    }

    function test_PrevGivenUp() external {
        Terms memory terms = _closedAt(2);
        _end(terms, client);
        _refused(_continue(_bid(), _ask(), terms));
    }

    function test_BidExpired() external {
        Terms memory terms = _closedAt(2);
        Match memory item = _continue(_bid(), _ask(), terms);
        vm.warp(item.bid.validUntil + 1);
        _expectRefusal(Reason.BidExpired);
        vm.prank(matcher);
        escrow.open(rules, item);
    }

    function test_PageRaised() external {
        Terms memory terms = _closedAt(2);
        vm.prank(client);
        escrow.raisePage(1);
        _openFrom(_continue(_bid(), _ask(), terms), 2);
        (,, uint32 page, uint112 used) = escrow.account(client);
        assertEq(page, 1, "page");
        assertEq(used, 0, "no nonce of the new page is used");
    }

    function test_GoesOn() external {
        Terms memory first = _closedAt(2);
        address other = _actor("other provider");
        _fund(other, FUNDS);
        Ask memory ask = _ask();
        ask.provider = other;
        ask.maxCheckpoints = 3;
        uint256 free = _free(client);
        Terms memory second = _openFrom(_continue(_bid(), ask, first), 2);
        _assertGone(_id(first));
        _assertState(_id(second), ACTIVE | MORE, 2, 2, 2, _tip(2));
        assertEq(second.parties.prev, _id(first), "prev");
        assertEq(_free(client), free - 3 * uint256(PRICE + FEE), "locked for 3..5");
        assertEq(_active(provider), 0, "first provider's active");
        assertEq(_active(other), 1, "second provider's active");

        // The second completes at 5 and is continued too.
        escrow.redeem(_approval(second, 5, false));
        _assertState(_id(second), CLOSED, 5, 5, 5, _tip(5));
        assertEq(_free(other), FUNDS + 3 * PRICE, "second provider is paid");
        Terms memory third = _openFrom(_continue(_bid(), _ask(), second), 5);
        _assertGone(_id(second));
        _assertState(_id(third), ACTIVE, 5, 5, 5, _tip(5));
        _redeem(third, 6);
        _assertGone(_id(third));
        assertEq(_free(client), FUNDS - 6 * uint256(PRICE + FEE), "client paid six");
        assertEq(_free(matcher), 6 * uint256(FEE), "matcher");
    }

    function test_ContinuedLeaseCannotBeContinuedAgain() external {
        Terms memory first = _closedAt(2);
        Match memory item = _continue(_bid(), _ask(), first);
        _openFrom(item, 2);
        _refused(item);
    }

    function _closedAt(uint16 n) private returns (Terms memory terms) {
        terms = _opened();
        _redeemLast(terms, n);
    }

    function _refused(Match memory item) private {
        _expectRefusal(Reason.PrevNotContinuable);
        vm.prank(matcher);
        escrow.open(rules, item);
    }
}

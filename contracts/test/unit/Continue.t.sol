// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ask, Bid, Match, Reason, Terms} from "../../src/interfaces/IEscrow.sol";
import {LeaseTest} from "../utils/LeaseTest.sol";

/* open, with prev
 * ├── prev is no lease, or not of this Bid: PrevNotContinuable
 * ├── prev is Active, Closing, Challenged, complete or dead: PrevNotContinuable
 * ├── the Bid has expired: BidExpired
 * ├── the Bid's page was raised: opens all the same
 * └── prev is Closed: goes on from its accepted index and tip, frees its slot
 *     ├── prev was itself a continuation: likewise
 *     └── prev was complete, and the Bid goes on: likewise
 */
contract ContinueTest is LeaseTest {
    function test_PrevUnknown() external {
        _redeemLast(terms, 2);
        Match memory item = _continue(_bid(), _ask(), terms);
        item.prevNums ^= 1;
        _notContinuable(item);
        item.prevNums ^= 1;
        item.prevPrev = bytes32(uint256(1));
        _notContinuable(item);
        item.prevPrev = 0;
        item.prevProvider = stranger;
        _notContinuable(item);
    }

    function test_PrevOfAnotherBid() external {
        _redeemLast(terms, 2);
        Bid memory bid = _bid();
        bid.stake -= 1;
        _notContinuable(_continue(bid, _ask(), terms));
    }

    function test_PrevActive() external {
        _notContinuable();
    }

    function test_PrevClosing() external {
        _end(terms, provider);
        _notContinuable();
    }

    function test_PrevChallenged() external {
        _claim(terms, 1, 2);
        _challenge(terms, 0, 2, 1);
        _notContinuable();
    }

    function test_PrevComplete() external {
        _redeem(terms, CHECKPOINTS);
        _notContinuable();
    }

    function test_PrevEndedByClient() external {
        _end(terms, client);
        _closeAfterWindow(terms);
        _notContinuable();
    }

    function test_PrevGivenUp() external {
        _redeemLast(terms, 2);
        _end(terms, client);
        _notContinuable();
    }

    function test_BidExpired() external {
        _redeemLast(terms, 2);
        Match memory item = _continue(_bid(), _ask(), terms);
        vm.warp(item.bid.validUntil + 1);
        _refused(item, Reason.BidExpired);
    }

    function test_PageRaised() external {
        _redeemLast(terms, 2);
        _raisePage(client, 1);
        _openFrom(_continue(_bid(), _ask(), terms), 2);
        (,, uint32 page, uint112 used) = escrow.account(client);
        assertEq(page, 1, "page");
        assertEq(used, 0, "no nonce of the new page is used");
    }

    function test_GoesOn() external {
        Terms memory first = terms;
        _redeemLast(first, 2);
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
        Terms memory first = terms;
        _redeemLast(first, 2);
        Match memory item = _continue(_bid(), _ask(), first);
        _openFrom(item, 2);
        _notContinuable(item);
    }

    function _notContinuable() private {
        _notContinuable(_continue(_bid(), _ask(), terms));
    }

    function _notContinuable(Match memory item) private {
        _refused(item, Reason.PrevNotContinuable);
    }
}

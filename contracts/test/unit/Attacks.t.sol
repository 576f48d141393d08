// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Escrow} from "../../src/Escrow.sol";
import {Ask, Bid, IEscrow, Match, Reason, Redemption, Terms} from "../../src/interfaces/IEscrow.sol";
import {OrderLib} from "../../src/libraries/OrderLib.sol";
import {EscrowTest} from "../utils/EscrowTest.sol";
import {HookedToken} from "../utils/Tokens.sol";

contract Thief {
    Escrow private immutable _escrow;

    constructor(Escrow escrow, HookedToken token) {
        _escrow = escrow;
        token.approve(address(escrow), type(uint256).max);
    }

    function deposit(uint256 amount) external {
        _escrow.deposit(address(this), amount);
    }

    function withdraw(uint256 amount) external {
        _escrow.withdraw(address(this), amount);
    }
}

/// @notice What nobody honest would do, and that it gains nothing.
contract AttacksTest is EscrowTest {
    uint256 private constant BID_WORDS = 13;
    uint256 private constant ASK_WORDS = 12;
    /// In the calldata of `open`: behind the selector; and behind that, six words of rules and the item's offset.
    uint256 private constant RULES_PLACE = 4;
    uint256 private constant ITEM_PLACE = 4 + 7 * 32;

    /// @dev Words with bits that their types don't have are hashed with them, and read without.
    function test_DirtyOrders() external {
        Match memory item = _match(_bid(), _ask());
        uint8[BID_WORDS] memory bidBits = [160, 160, 160, 0, 0, 0, 16, 64, 96, 64, 96, 40, 40];
        uint8[ASK_WORDS] memory askBits = [160, 160, 0, 0, 96, 64, 96, 16, 16, 40, 40, 32];
        bytes memory bid = abi.encode(item.bid);
        bytes memory ask = abi.encode(item.ask);
        for (uint256 i; i < BID_WORDS; ++i) {
            if (bidBits[i] != 0) _soil(bid, i, type(uint256).max << bidBits[i]);
        }
        for (uint256 i; i < ASK_WORDS; ++i) {
            if (askBits[i] != 0) _soil(ask, i, type(uint256).max << askBits[i]);
        }
        _soil(bid, 5, type(uint96).max); // startTip is left aligned
        bytes32 bidId = _digestOf(OrderLib.BID_TYPEHASH, bid);
        item.bidSignature = _sign(client, bidId);
        item.askSignature = _sign(provider, _digestOf(OrderLib.ASK_TYPEHASH, ask));
        bytes memory input = abi.encodeCall(IEscrow.open, (rules, item));
        _put(input, ITEM_PLACE, bytes.concat(bid, ask));

        bytes memory output = _send(matcher, input);
        Terms memory terms = _terms(item, 0);
        terms.parties.bid = bidId;
        assertEq(abi.decode(output, (bytes32)), _id(terms), "lease");
        _assertState(_id(terms), ACTIVE, 0, 0, 0, _tip(0));
        _claim(terms, 1, 2);
        _redeem(terms, CHECKPOINTS);
        _assertGone(_id(terms));
        item = _match(_bid(), _ask());
        _refused(item, Reason.BidUsed);
    }

    /// @dev A lease that could be opened under such rules, but not challenged, would accept any claim.
    function test_DirtyRules() external {
        bytes memory words = abi.encode(rules);
        _soil(words, 2, type(uint256).max << 32);
        bytes32 hash = keccak256(bytes.concat(OrderLib.RULES_TYPEHASH, words));
        Match memory item = _match(_bid(), _ask());
        item.bid.rules = item.ask.rules = hash;
        _resign(item);
        bytes memory input = abi.encodeCall(IEscrow.open, (rules, item));
        _put(input, RULES_PLACE, words);
        _send(matcher, input);
        Terms memory terms = _terms(item, 0);
        _claim(terms, 1, 1);

        uint256 place = 4 + 11 * 32; // behind the selector and the terms
        input = abi.encodeCall(IEscrow.challenge, (terms, rules, _tip(0), _roots(1, 1), 1, 0));
        _put(input, place, words);
        _send(challenger, input);
        arbiter.rule(_dispute(terms), 2);
        input = abi.encodeCall(IEscrow.resolve, (terms, rules));
        _put(input, place, words);
        _send(stranger, input);
        _assertState(_id(terms), CLOSED, 0, 0, 0, _tip(0));
        assertEq(_free(provider), FUNDS - STAKE, "provider");
    }

    /// @dev Indices end at 65535, and so does a claim.
    function test_LastIndices() external {
        Bid memory bid = _bid();
        (bid.checkpoints, bid.maxPrice, bid.fee) = (type(uint16).max, 2, 1);
        Ask memory ask = _ask();
        (ask.pricePerHour, ask.maxCheckpoints) = (1, type(uint16).max - 1);
        Match memory item = _match(bid, ask);
        item.price = 1;
        Terms memory terms = _open(item);
        Redemption memory approved = _approval(terms, 1, false);
        approved.approval.n = 65_533;
        _resign(approved);
        escrow.redeem(approved);
        _expectBadIndex(65_535, 65_534, 65_534);
        _claim(terms, 65_535, 0, _roots(2, 3));
        _claim(terms, 65_534, _tip(2), _roots(2, 2));
        vm.warp(START_TIME + WINDOW);
        escrow.collect(terms);

        item = _continue(bid, ask, terms);
        item.price = 1;
        terms = _openFrom(item, 65_534);
        _claim(terms, 65_535, _tip(3), _roots(3, 3));
        vm.warp(START_TIME + 2 * WINDOW);
        escrow.collect(terms);
        _assertGone(_id(terms));
        assertEq(_free(client), FUNDS - 2 * 65_535, "client");
        assertEq(_free(provider), FUNDS + 65_535, "provider");
        assertEq(_free(matcher), 65_535, "matcher");
    }

    function test_TokenCallsBack() external {
        for (uint256 mode; mode < 8; ++mode) {
            (bool back, bool early, bool depositing) = (mode & 1 != 0, mode & 2 != 0, mode & 4 != 0);
            HookedToken hooked = new HookedToken();
            Escrow other = _newEscrow(hooked, _bounds());
            hooked.mint(address(this), 100);
            hooked.approve(address(other), 100);
            other.deposit(client, 100);
            Thief thief = new Thief(other, hooked);
            hooked.mint(address(thief), 50);
            thief.deposit(20);
            bytes memory input = back ? abi.encodeCall(Thief.withdraw, (10)) : abi.encodeCall(Thief.deposit, (10));
            hooked.callBack(address(thief), input, early);
            // What arrives at a deposit is measured, so nothing else may move meanwhile.
            if (depositing) {
                vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_ReceivedOther.selector, back ? 10 : 30, 20));
            }
            if (depositing) thief.deposit(20);
            else thief.withdraw(10);
            uint256 his = _freeIn(other, address(thief));
            assertEq(_freeIn(other, client), 100, "others");
            assertEq(hooked.balanceOf(address(other)), his + 100, "held");
            assertEq(hooked.balanceOf(address(thief)) + his, 50, "thief");
        }
    }

    /// @dev Whoever convicts itself, to have the challenger's part too, pays four fifths of the stake all the same.
    function testFuzz_SelfChallenge(uint96 stake, uint96 fee, uint8 verdict, bool signed) external {
        fee = uint96(bound(fee, 0, 100e6));
        stake = uint96(bound(stake, fee == 0 ? 1 : fee, 200e6));
        rules.arbiterFee = fee;
        Match memory item = _match(_bid(), _ask());
        (item.bid.stake, item.ask.maxStake) = (stake, stake);
        _resign(item);
        Terms memory terms = _open(item);
        bytes memory signature = _signedClaim(terms, 1, _tip(1));
        if (!signed) _claim(terms, 1, 1);
        vm.prank(provider);
        if (signed) escrow.challengeSigned(terms, rules, _tip(0), _roots(1, 0), _roots(1, 1), 1, 0, signature);
        else escrow.challenge(terms, rules, _tip(0), _roots(1, 1), 1, 0);
        _resolve(terms, 2 + verdict % 2);
        uint256 lost = FUNDS - _free(provider);
        assertTrue(5 * lost >= 4 * uint256(stake - fee) + 5 * uint256(fee), "four fifths, and the fee");
        if (verdict % 2 == 1) assertEq(lost, stake, "a void costs it all");
    }

    /// @dev What is burnt is held for nobody: no call of nobody's can be made, and no order of nobody's is valid.
    function test_BurntTokensDoNotMove() external {
        Terms memory terms = _opened();
        _claim(terms, 1, 1);
        _challenge(terms, 0, 1, 1);
        _resolve(terms, 3);
        uint256 burnt = STAKE - ARBITER_FEE;
        assertEq(_free(address(0)), burnt, "burnt");
        uint256 free = _free(client) + _free(provider) + _free(challenger) + _free(address(arbiter)) + _free(matcher);
        assertEq(free + burnt, token.balanceOf(address(escrow)), "all are held");

        bytes[3] memory signatures = [bytes(""), new bytes(64), new bytes(65)];
        for (uint256 i; i < signatures.length; ++i) {
            Match memory item = _match(_bid(uint40(i + 1)), _ask());
            item.bid.client = address(0);
            item.bidSignature = signatures[i];
            _refused(item, Reason.BidSignatureInvalid);
            Bid memory bid = _bid(uint40(i + 1));
            bid.stake = ARBITER_FEE;
            item = _match(bid, _ask());
            item.ask.provider = address(0);
            item.askSignature = signatures[i];
            _refused(item, Reason.AskSignatureInvalid);
        }
        vm.expectRevert(IEscrow.Escrow_ZeroAddress.selector);
        escrow.deposit(address(0), 1);
        _end(terms, client);
        terms = _open(_match(_bid(9), _ask()));
        _redeem(terms, CHECKPOINTS);
        assertEq(_free(address(0)), burnt, "it stays");
    }

    function _soil(bytes memory words, uint256 index, uint256 dirt) private pure {
        assembly ("memory-safe") {
            let word := add(add(words, 0x20), mul(index, 0x20))
            mstore(word, or(mload(word), dirt))
        }
    }

    function _put(bytes memory input, uint256 place, bytes memory part) private pure {
        for (uint256 i; i < part.length; ++i) {
            input[place + i] = part[i];
        }
    }

    function _digestOf(bytes32 typeHash, bytes memory words) private view returns (bytes32) {
        return _digest(keccak256(bytes.concat(typeHash, words)));
    }

    function _send(address sender, bytes memory input) private returns (bytes memory) {
        vm.prank(sender);
        (bool ok, bytes memory output) = address(escrow).call(input);
        assertTrue(ok, "went through");
        return output;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

import {SignatureLib} from "../../src/libraries/SignatureLib.sol";

/// @notice A contract wallet with one owner, and bad versions of it.
contract Wallet is IERC1271 {
    enum Mood {
        Good,
        SaysNo,
        Reverts,
        EatsGas,
        ReturnBomb,
        AnswersShort,
        AnswersDirty
    }

    address public immutable owner;
    Mood public mood;

    constructor(address owner_) {
        owner = owner_;
    }

    function setMood(Mood newMood) external {
        mood = newMood;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        Mood m = mood;
        if (m == Mood.Reverts) revert("no");
        if (m == Mood.EatsGas) while (true) {}
        bool yes = m != Mood.SaysNo && SignatureLib.recover(digest, signature) == owner;
        uint256 answer = yes ? uint256(uint32(IERC1271.isValidSignature.selector)) << 224 : 0;
        uint256 size = 32;
        if (m == Mood.AnswersShort) size = 31;
        if (m == Mood.ReturnBomb) size = 200_000; // what 60,000 gas can pay for
        if (m == Mood.AnswersDirty) answer |= 1;
        assembly ("memory-safe") {
            let p := mload(0x40)
            mstore(p, answer)
            return(p, size)
        }
    }
}

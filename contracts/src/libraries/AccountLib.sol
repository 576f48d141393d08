// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// free96 | active16 | page32 | used112, the first in the highest bits.
type Account is uint256;

using AccountLib for Account global;

/// @dev A party's slot. No sum of balances passes 96 bits, because `deposit` bounds what the escrow holds.
library AccountLib {
    uint256 internal constant NONCES = 112;

    uint256 private constant ONE_ACTIVE = 1 << 144;

    function free(Account a) internal pure returns (uint256) {
        return Account.unwrap(a) >> 160;
    }

    function active(Account a) internal pure returns (uint256) {
        return uint16(Account.unwrap(a) >> 144);
    }

    function page(Account a) internal pure returns (uint256) {
        return uint32(Account.unwrap(a) >> 112);
    }

    function used(Account a) internal pure returns (uint112) {
        return uint112(Account.unwrap(a));
    }

    function isUsed(Account a, uint256 bit) internal pure returns (bool) {
        return (Account.unwrap(a) >> bit) & 1 != 0;
    }

    function use(Account a, uint256 bit) internal pure returns (Account) {
        return Account.wrap(Account.unwrap(a) | (1 << bit));
    }

    /// @dev A new page has no used nonces.
    function withPage(Account a, uint32 newPage) internal pure returns (Account) {
        return Account.wrap(((Account.unwrap(a) >> 144) << 144) | (uint256(newPage) << 112));
    }

    function credit(Account a, uint256 amount) internal pure returns (Account) {
        return Account.wrap(Account.unwrap(a) + (amount << 160));
    }

    /// @dev The caller has checked amount <= free.
    function debit(Account a, uint256 amount) internal pure returns (Account) {
        unchecked {
            return Account.wrap(Account.unwrap(a) - (amount << 160));
        }
    }

    /// @dev The caller has checked active < 2^16 - 1.
    function activate(Account a) internal pure returns (Account) {
        unchecked {
            return Account.wrap(Account.unwrap(a) + ONE_ACTIVE);
        }
    }

    function deactivate(Account a) internal pure returns (Account) {
        return Account.wrap(Account.unwrap(a) - ONE_ACTIVE);
    }
}

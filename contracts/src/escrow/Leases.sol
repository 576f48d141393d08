// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IEscrow, Terms} from "../interfaces/IEscrow.sol";
import {Account} from "../libraries/AccountLib.sol";
import {State, StateLib} from "../libraries/StateLib.sol";
import {Nums, TermsLib} from "../libraries/TermsLib.sol";
import {Balances} from "./Balances.sol";

/// @dev Where each lease stands, and what is paid when it moves on or ends.
abstract contract Leases is Balances {
    using TermsLib for Terms;

    mapping(bytes32 lease => State) internal _states;

    /// @dev Pays what is accepted. The lease is over if that was the rest of it, or if it stops here.
    function _payAccepted(Terms calldata terms, bytes32 lease, State s, bool stop) internal {
        uint256 n = s.accepted();
        if (stop || n == terms.unpacked().end()) {
            _exit(terms, lease, s, terms.parties.stake, 0);
        } else {
            _states[lease] = s.withSettled(n);
            _pay(terms, n - s.settled(), 0, false);
        }
    }

    /// @dev Every exit: pays what is accepted, refunds the rest, gives out the stake, and frees the slot or leaves it
    /// Closed for the next lease of the same Bid.
    function _exit(Terms calldata terms, bytes32 lease, State s, uint256 toProvider, uint256 stakeToClient) internal {
        Nums nums = terms.unpacked();
        uint256 n = s.accepted();
        uint256 rest = nums.end() - n;
        uint256 toClient = stakeToClient;
        unchecked {
            // Sums and products can't overflow: counts have 16 bits, prices 96, fees 64, stakes 96.
            toClient += rest * (nums.price() + nums.fee());
        }
        bool continuable = !s.has(StateLib.BY_CLIENT) && (rest != 0 || s.has(StateLib.MORE));
        if (continuable) _states[lease] = s.asClosed();
        else _states[lease] = State.wrap(0);

        _pay(terms, n - s.settled(), toProvider, s.isActive());
        _credit(terms.parties.client, toClient);
        if (rest != 0 || continuable) emit Closed(lease, uint16(n), stakeToClient, continuable);
    }

    /// @dev Pays `count` checkpoints, and the provider `extra` in the same write.
    function _pay(Terms calldata terms, uint256 count, uint256 extra, bool deactivate) internal {
        Nums nums = terms.unpacked();
        unchecked {
            // As above; a stake and a bond have 97 bits.
            extra += nums.price() * count;
            count *= nums.fee();
        }
        Account provider = _accounts[terms.provider].credit(extra);
        _accounts[terms.provider] = deactivate ? provider.deactivate() : provider;
        _credit(terms.parties.feeTo, count);
    }

    /// @inheritdoc IEscrow
    function state(bytes32 lease)
        external
        view
        returns (uint8 status, uint16 settled, uint16 accepted, uint16 claimed, uint40 t, bytes20 tip)
    {
        State s = _states[lease];
        return (s.status(), uint16(s.settled()), uint16(s.accepted()), uint16(s.claimed()), uint40(s.t()), s.tip());
    }

    /// @inheritdoc IEscrow
    function leaseId(Terms calldata terms) external pure returns (bytes32) {
        return terms.id();
    }
}

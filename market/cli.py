"""`gpumarket market`: run a market."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from market.serve import Server

app = typer.Typer(no_args_is_help=True, help="Run a market.")

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Directory of config, keys and data; default: $GPUMARKET_HOME or ~/.gpumarket"),
]


@app.callback()
def market() -> None:
    """Run a market."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the matcher's key.")] = None,
    home: Home = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every request.")] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line.")] = False,
) -> None:
    """Serve the API, follow the chain, clear the auction. Stops on Ctrl-C or SIGTERM."""
    if home is not None:
        os.environ["GPUMARKET_HOME"] = str(home)
    from contracts.settings import load_settings
    from market.logs import configure_logs
    from market.serve import Server, only_one, open_context, works
    from market.settings import load_market_settings

    configure_logs(verbose, json_logs)
    with only_one():
        context = open_context(load_market_settings(host=host, port=port, key=key), load_settings())
        server = Server(context, works())
        show(server)
        code = server.run()
    raise typer.Exit(code)


def show(server: "Server") -> None:
    context, info = server.context, server.context.info()
    typer.echo(f"market    {server.url}")
    typer.echo(f"chain     {info.chain_id}, escrow {info.escrow}")
    typer.echo(f"token     {info.token_symbol} {info.token}")
    typer.echo(f"matcher   {info.matcher}, fee {info.fee} per checkpoint")
    typer.echo(f"rules     {', '.join(rules.name for rules in info.rules)}")
    typer.echo(f"data      {context.db.engine.url}, {context.settings.blob_dir}")


@app.command()
def rebuild(
    home: Home = None,
    from_chain: Annotated[
        bool,
        typer.Option(
            "--from-chain", help="Forget the events too: the next start follows the chain from its beginning."
        ),
    ] = False,
) -> None:
    """Compute all leases anew from the stored events. Orders, claims and approvals stay."""
    if home is not None:
        os.environ["GPUMARKET_HOME"] = str(home)
    from market import indexer
    from market.serve import only_one, open_database
    from market.settings import load_market_settings

    with only_one():
        db = open_database(load_market_settings())
        with db.session() as session:
            if from_chain:
                indexer.forget_chain(session)
            count = indexer.rebuild(session)
    typer.echo(f"{count} leases")

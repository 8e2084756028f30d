"""TLS as a server and its clients use it: version 1.3, and certificates of both where asked."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class TLS:
    """The certificates of one side, as paths of PEM files.

    Args:
        certificate: The certificate of this side, with those that lead to its authority. A server
            has to have one, a client where the server asks for it.
        key: The private key of the certificate. Default: it is in the same file.
        ca: The authorities that sign certificates of the other side. A server that has it takes
            clients with such a certificate only (mutual TLS). Default of a client: those of the
            system.
        server_name: The name that the certificate of the server has to have. Default: the host
            that the client connects to.

    Example:
        >>> import synapse
        >>> tls = synapse.TLS(certificate="server.pem", key="server.key", ca="clients.pem")
    """

    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def server_context(self) -> ssl.SSLContext:
        """What a server listens with.

        Raises:
            ValueError: There is no certificate.
            OSError: A file cannot be read, or is not what it should be.
        """
        if self.certificate is None:
            raise ValueError("a server needs a certificate: TLS(certificate=..., key=...)")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.load_cert_chain(self.certificate, self.key)
        if self.ca is not None:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """What a client connects with.

        Raises:
            OSError: A file cannot be read, or is not what it should be.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

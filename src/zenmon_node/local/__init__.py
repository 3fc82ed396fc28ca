"""The Local: monitors processes of other nodes through their Proxies, and delivers the DOWN messages, paced."""

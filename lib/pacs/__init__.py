"""Studies beside a DICOMweb server."""

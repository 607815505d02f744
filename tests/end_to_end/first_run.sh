#!/usr/bin/env bash
# From `pip install` to the first finished run of one's own products: every line below the products is one command.
set -euo pipefail
cat >products.csv <<'CSV'
sku,title,front_image_url,back_image_url,gender
00123,Linen shirt,https://images.example.com/00123-front.jpg,https://images.example.com/00123-back.jpg,F
00124,Wool coat,https://images.example.com/00124-front.jpg,https://images.example.com/00124-back.jpg,M
CSV
pip install --quiet --disable-pip-version-check "${LAMINA_BATCH:-lamina-batch}"
lamina-batch init --app bbb17293-5fe7-4645-8c6e-0745bc28254d --rows products.csv --sandbox
lamina-batch run products.yaml --sandbox
